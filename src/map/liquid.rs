//! Placeholder until the templates are merged.
use serde_json::Value;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LiquidTemplate;

impl LiquidTemplate {
    pub(super) fn compile(_: &str) -> Result<Self, String> {
        Err("is not supported".to_owned())
    }

    pub(super) fn render(&self, _: &Value) -> Result<String, String> {
        Err(String::new())
    }
}
