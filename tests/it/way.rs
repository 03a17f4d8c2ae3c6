//! A way to the database that can be cut, slowed down, or made to swallow what is sent on it.

use std::future::pending;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rand::RngExt;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

/// What a way does to what is sent on it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Weather {
    /// Passes it on at once.
    Fair,
    /// Passes it on later, in milliseconds.
    Slow(u64, u64),
    /// Closes the connection with this probability: of a commit, before or after it has arrived; in any case before its
    /// answer has come back. Of anything else, less often.
    Cutting(f64),
    /// Keeps it, and passes it on once that is over, to whomever is still there.
    Silent,
    /// Keeps answers; requests arrive.
    Deaf,
}

/// A port that leads to a server.
pub struct Way {
    pub port: u16,
    weather: watch::Sender<Weather>,
    /// How often it has forgotten its connections.
    forgotten: watch::Sender<u32>,
    cuts: Arc<AtomicU32>,
}

impl Way {
    /// To the socket of a server.
    pub async fn to(server: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("it is bound").port();
        let weather = watch::Sender::new(Weather::Fair);
        let forgotten = watch::Sender::new(0);
        let (of_all, forgetting) = (weather.subscribe(), forgotten.clone());
        let cuts = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&cuts);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (counted, forgetting) = (Arc::clone(&counted), forgetting.subscribe());
                tokio::spawn(connected(
                    client,
                    server.clone(),
                    of_all.clone(),
                    counted,
                    forgetting,
                ));
            }
        });
        Self { port, weather, forgotten, cuts }
    }

    /// How many connections were cut.
    pub fn cuts(&self) -> u32 {
        self.cuts.load(Ordering::Relaxed)
    }

    pub fn becomes(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }

    /// Swallows whatever is sent from now on by those who are connected, and tells nobody: as a router does that has
    /// forgotten its connections.
    pub fn forgets(&self) {
        self.forgotten.send_modify(|count| *count += 1);
    }
}

/// What is on its way, and when it arrives.
type Parcel = (Instant, Vec<u8>);

/// Passes on what is said on a connection until either side, or the way, has closed it.
async fn connected(
    client: TcpStream,
    server: PathBuf,
    weather: watch::Receiver<Weather>,
    cuts: Arc<AtomicU32>,
    mut forgotten: watch::Receiver<u32>,
) {
    let Ok(server) = UnixStream::connect(server).await else { return };
    let _ = client.set_nodelay(true);
    let (mut client_says, mut to_client) = client.into_split();
    let (mut server_says, mut to_server) = server.into_split();
    let (sent, arriving) = mpsc::unbounded_channel();
    let (answered, returning) = mpsc::unbounded_channel();
    let now = weather.clone();
    let requests = async {
        let mut heard = vec![0; 1 << 16];
        while let Ok(bytes @ 1..) = client_says.read(&mut heard).await {
            let said = heard[..bytes].to_vec();
            let is_commit = said.windows(6).any(|part| part == b"COMMIT");
            let weather = *now.borrow();
            let is_cut = matches!(weather, Weather::Cutting(share)
                if rand::rng().random_bool(if is_commit { share } else { share / 10.0 }));
            let arrives = rand::rng().random_bool(0.7);
            if !is_cut || arrives {
                let _ = sent.send((arrival(weather), said));
            }
            if is_cut {
                cuts.fetch_add(1, Ordering::Relaxed);
                drop(sent); // what was sent before arrives
                return pending::<()>().await;
            }
        }
        drop(sent);
        pending::<()>().await;
    };
    let answers = async {
        let mut heard = vec![0; 1 << 16];
        while let Ok(bytes @ 1..) = server_says.read(&mut heard).await {
            let _ = answered.send((arrival(*now.borrow()), heard[..bytes].to_vec()));
        }
        drop(answered);
        pending::<()>().await;
    };
    let requests_pass = |weather: &Weather| *weather != Weather::Silent;
    let answers_pass = |weather: &Weather| !matches!(weather, Weather::Silent | Weather::Deaf);
    tokio::select! {
        () = requests => {}
        () = answers => {}
        () = arrive(arriving, &mut to_server, weather.clone(), requests_pass) => {}
        () = arrive(returning, &mut to_client, weather.clone(), answers_pass) => {}
        _ = forgotten.changed() => pending().await, // both sides are still held
    }
}

/// Hands over what arrives, in its order; returns once the connection is closed.
async fn arrive(
    mut parcels: mpsc::UnboundedReceiver<Parcel>,
    to: &mut (impl AsyncWrite + Unpin),
    mut weather: watch::Receiver<Weather>,
    passes: impl Fn(&Weather) -> bool,
) {
    while let Some((at, said)) = parcels.recv().await {
        sleep_until(at).await;
        let _ = weather.wait_for(&passes).await;
        if to.write_all(&said).await.is_err() {
            return;
        }
    }
}

fn arrival(weather: Weather) -> Instant {
    let delay = match weather {
        Weather::Slow(least, most) => rand::rng().random_range(least..=most),
        _ => 0,
    };
    Instant::now() + Duration::from_millis(delay)
}
