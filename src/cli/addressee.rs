//! What an event is posted to: a destination, or a route to several destinations.

use crate::config::{Config, Destination, Route, SegmentSection};

/// A destination or a route: each has a path that events are posted to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Addressee<'a> {
    Destination(&'a Destination),
    Route(&'a Route),
}

impl<'a> Addressee<'a> {
    /// The destination or route with that name; without a name, the only destination.
    pub fn named(config: &'a Config, name: Option<&str>) -> Result<Self, String> {
        let names = || {
            let destinations = config.destinations.iter().map(|of| of.name.as_str());
            let routes = config.routes.iter().map(|of| of.name.as_str());
            destinations.chain(routes).collect::<Vec<&str>>().join(", ")
        };
        match (name.and_then(|name| config.route(name)), name) {
            (Some(route), _) => Ok(Self::Route(route)),
            (None, Some(name)) if config.destination(name).is_none() => {
                Err(format!("there is no destination or route {name:?}; there are: {}", names()))
            }
            (None, None) if config.destinations.len() > 1 && !config.routes.is_empty() => {
                Err(format!("say which destination or route: {}", names()))
            }
            (None, name) => super::destination(config, name).map(Self::Destination),
        }
    }

    /// Its name, which is the last part of its path.
    pub fn name(self) -> &'a str {
        match self {
            Self::Destination(destination) => destination.name.as_str(),
            Self::Route(route) => &route.name,
        }
    }

    /// The settings of its path, such as its credentials; an error if it has no path.
    pub fn segment(self, config: &Config) -> Result<&'a SegmentSection, String> {
        match self {
            Self::Route(route) => Ok(&route.segment),
            Self::Destination(destination) => destination.segment.as_ref().ok_or_else(|| {
                let name = &destination.name;
                let routes = config.routes.iter().filter(|of| of.destinations.contains(name));
                let routes: Vec<&str> = routes.map(|of| of.name.as_str()).collect();
                format!("{name} is reached by a route only: {}", routes.join(", "))
            }),
        }
    }
}
