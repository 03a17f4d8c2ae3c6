//! A headless Chromium that a test drives, through tests/dashboard/browser.mjs.

use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::Mutex;

use crate::harness::DEADLINE;
use crate::needs::chromium;
use crate::npm;

/// One browser with one page; ends with the test.
pub struct Browser {
    // Read and written in turns.
    pipes: Mutex<(ChildStdin, Lines<BufReader<ChildStdout>>)>,
    _child: Child,
    _profile: tempfile::TempDir,
}

impl Browser {
    pub fn start() -> Self {
        let profile = tempfile::tempdir().expect("a temporary directory");
        let mut command = npm::DASHBOARD.node(["browser.mjs"]);
        command.arg(chromium().expect("it is there")).arg(profile.path());
        let mut command = Command::from(command);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().expect("node is there");
        let input = child.stdin.take().expect("it is piped");
        let output = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        Self { pipes: Mutex::new((input, output)), _child: child, _profile: profile }
    }

    /// Opens a page.
    pub async fn open(&self, url: &str) {
        self.tell(json!(["open", url])).await;
    }

    /// So wide and so high, on `light` or `dark`.
    pub async fn shape(&self, width: u32, height: u32, scheme: &str) {
        self.tell(json!(["shape", width, height, scheme])).await;
    }

    /// Waits until something can be seen.
    pub async fn see(&self, selector: &str) {
        self.tell(json!(["see", selector])).await;
    }

    /// Waits until nothing of the kind can be seen.
    pub async fn miss(&self, selector: &str) {
        self.tell(json!(["miss", selector])).await;
    }

    /// Clicks once it can be.
    pub async fn click(&self, selector: &str) {
        self.tell(json!(["click", selector])).await;
    }

    /// Writes into a field.
    pub async fn fill(&self, selector: &str, text: &str) {
        self.tell(json!(["fill", selector, text])).await;
    }

    /// Presses a key.
    pub async fn press(&self, key: &str) {
        self.tell(json!(["press", key])).await;
    }

    /// What stands there.
    pub async fn text(&self, selector: &str) -> String {
        self.tell(json!(["text", selector])).await.as_str().expect("a text").to_owned()
    }

    /// What an expression comes to in the page.
    pub async fn evaluate(&self, expression: &str) -> Value {
        self.tell(json!(["evaluate", expression])).await
    }

    /// The page as it is now, all of it.
    pub async fn bytes(&self) -> String {
        self.tell(json!(["bytes"])).await.as_str().expect("a text").to_owned()
    }

    /// Keeps a picture of the whole page under the target folder, to look at.
    pub async fn picture(&self, name: &str) {
        self.keep("picture", name).await;
    }

    /// Keeps one of what the window shows.
    pub async fn view(&self, name: &str) {
        self.keep("view", name).await;
    }

    async fn keep(&self, deed: &str, name: &str) {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("dashboard/pictures");
        std::fs::create_dir_all(&folder).expect("it is ours");
        self.tell(json!([deed, folder.join(format!("{name}.png"))])).await;
    }

    /// Nothing was blocked, failed or minded, and nobody else was asked, since this was last called.
    pub async fn is_content(&self) {
        let complaints = self.complaints().await;
        assert!(complaints.is_empty(), "{complaints:#?}");
    }

    /// What was.
    pub async fn complaints(&self) -> Vec<String> {
        strings(self.tell(json!(["complaints"])).await)
    }

    /// By the rules of WCAG 2, levels A and AA, nothing is wrong with the page as it is now.
    pub async fn is_accessible(&self) {
        let faults = strings(self.tell(json!(["faults"])).await);
        assert!(faults.is_empty(), "{faults:#?}");
    }

    async fn tell(&self, deed: Value) -> Value {
        let mut pipes = self.pipes.lock().await;
        let (input, output) = &mut *pipes;
        input.write_all(format!("{deed}\n").as_bytes()).await.expect("the browser listens");
        let line = tokio::time::timeout(DEADLINE, output.next_line()).await;
        let line = line.expect("the browser answers in time").expect("text");
        let mut answer: Value =
            serde_json::from_str(&line.expect("the browser is there")).expect("JSON");
        assert!(answer["failed"].is_null(), "{}", answer["failed"]);
        answer["done"].take()
    }
}

fn strings(list: Value) -> Vec<String> {
    serde_json::from_value(list).expect("a list of texts")
}
