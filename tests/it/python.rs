//! Packages from the Python Package Index that tests use.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::needs::{Lack, Remedy, installed};

/// Segment's SDK for Python.
pub static SEGMENT: Packages =
    Packages { name: "segment", packages: &["segment-analytics-python==2.4.0"] };
/// Google's protobuf, with OpenTelemetry's definitions.
pub static OTLP: Packages = Packages { name: "otlp", packages: &["opentelemetry-proto==1.45.2"] };
/// Tests an API against its description, and validates descriptions.
pub static SCHEMATHESIS: Packages = Packages {
    name: "openapi",
    packages: &["schemathesis==4.32.5", "openapi-spec-validator==0.9.0"],
};
/// The schemas of Kubernetes.
pub static KUBERNETES_VALIDATE: Packages =
    Packages { name: "kubernetes", packages: &["kubernetes-validate==1.37.0"] };

/// A virtual environment with these packages, kept between runs.
pub struct Packages {
    name: &'static str,
    packages: &'static [&'static str],
}

impl Packages {
    fn folder(&self) -> PathBuf {
        Path::new(env!("CARGO_TARGET_TMPDIR")).join("python").join(self.name)
    }

    /// The path of a program in it, such as `python`.
    pub fn program(&self, name: &str) -> PathBuf {
        self.folder().join("bin").join(name)
    }

    pub fn install(&self) -> Result<(), Lack> {
        installed("python3", PYTHON)?;
        let has_pip = Command::new("python3").args(["-c", "import ensurepip, venv"]).output();
        if !has_pip.is_ok_and(|tried| tried.status.success()) {
            let why = "python3 cannot make environments".to_owned();
            return Err(Lack { why, remedy: Remedy::Packages(PYTHON) });
        }
        let folder = self.folder();
        let (done, wanted) = (folder.join("installed"), self.packages.join(" "));
        let is_done = std::fs::read_to_string(&done).is_ok_and(|installed| installed == wanted);
        if is_done && self.program("python").exists() {
            return Ok(()); // its interpreter still exists
        }
        let _ = std::fs::remove_dir_all(&folder); // what an earlier, interrupted run left
        std::fs::create_dir_all(&folder).expect("it is ours");
        let made = Command::new("python3").args(["-m", "venv"]).arg(&folder).output();
        let made = made.expect("python3 is there");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let install = ["install", "--quiet", "--disable-pip-version-check", "--retries=1"];
        let output = Command::new(self.program("pip")).args(install).args(self.packages).output();
        let output = output.expect("it came with the environment");
        if output.status.success() {
            std::fs::write(done, wanted).expect("it is ours");
            return Ok(());
        }
        let complaint = String::from_utf8_lossy(&output.stderr);
        let line = complaint.trim_end().lines().last().unwrap_or("it does not say why");
        let is_alone = complaint.contains("connection broken"); // which the last line does not mention
        Err(Lack {
            why: if is_alone {
                "pip does not reach its index".to_owned()
            } else {
                format!("pip cannot install {wanted} ({line})")
            },
            remedy: Remedy::Other(
                "an index that pip reaches (pip config set global.index-url URL)",
            ),
        })
    }
}

/// Debian's packages of Python and pip.
const PYTHON: &str = "python3 python3-venv";
