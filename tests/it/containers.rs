//! The image, built from the Dockerfile and run as the manual describes, by a container engine.
//!
//! No registry is contacted: both base images are substitutes made from this machine's files. The one with
//! the compiler provides a binary that was built before, so that the test covers the image and not the
//! build. Everything happens in a network of its own, where the manual's ports are free.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::needs::{CONTAINERS, OPENSSL, container_runtime};
use crate::pages;

/// Longer than a start takes on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// An engine whose images, volumes and network are used by nothing else.
pub struct Engine {
    folder: tempfile::TempDir,
    network: Child,
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.sh("docker rm --all --force --time 0; docker volume rm --all --force").ok();
        self.network.kill().ok();
        self.network.wait().ok();
    }
}

impl Engine {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let network = Command::new("unshare").args(["--net", "sleep", "infinity"]).spawn();
        let engine = Self { folder, network: network.expect("it was looked for") };
        for folder in ["bin", "project"] {
            std::fs::create_dir(engine.at(folder)).expect("it is ours");
        }
        // The pages say `docker`. A build uses the base images as they are, and its steps run this
        // machine's programs; the other image format has no health checks.
        let root = engine.folder.path().display();
        let podman = format!(
            "#!/bin/sh\n\
             export CONTAINERS_CONF={root}/containers.conf\n\
             if [ \"$1\" = build ]; then\n\
             shift\n\
             set -- build --format docker --pull=never --isolation chroot --network host -v /usr:/usr:ro \"$@\"\n\
             fi\n\
             exec podman --root {root}/images --runroot {root}/run --storage-driver vfs --log-level error \"$@\"\n"
        );
        // Without cgroups it also works inside a container. With cgroups v1 only `runc` works.
        let groups = if container_runtime() == "crun" { "cgroups = \"disabled\"" } else { "" };
        let settings = format!(
            "[containers]\n{groups}\ndefault_ulimits = [\"nofile=4096:4096\", \"nproc=1024:1024\"]\n\
             [engine]\nruntime = \"{runtime}\"\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\n\
             tmp_dir = \"{root}/tmp\"\n\
             [network]\nnetwork_backend = \"netavark\"\nnetwork_config_dir = \"{root}/networks\"\n",
            runtime = container_runtime(),
        );
        std::fs::write(engine.at("containers.conf"), settings).expect("it is ours");
        write_program(&engine.at("bin/docker"), &podman);
        engine.types("ip link set lo up");
        engine
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs lines in a shell, in the project's folder; returns its output.
    fn sh(&self, lines: &str) -> Result<String, String> {
        let network = format!("--net=/proc/{}/ns/net", self.network.id());
        let path = std::env::var("PATH").unwrap_or_default();
        let output = Command::new("nsenter")
            .args([&network, "sh", "-euc", lines])
            .current_dir(self.at("project"))
            .env("PATH", format!("{}:{path}", self.at("bin").display()))
            .env("GIT_DIR", concat!(env!("CARGO_MANIFEST_DIR"), "/.git"))
            .envs([("GIT_CONFIG_COUNT", "1"), ("GIT_CONFIG_KEY_0", "safe.directory")])
            .env("GIT_CONFIG_VALUE_0", "*")
            .stdin(Stdio::null())
            .output();
        let Output { status, stdout, stderr } = output.expect("it was looked for");
        let (said, complaint) =
            (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
        note!("{lines}\n{said}{complaint}");
        if status.success() { Ok(said.into_owned()) } else { Err(format!("{said}{complaint}")) }
    }

    /// Like [`sh`](Self::sh), for lines that must succeed.
    fn types(&self, lines: &str) -> String {
        self.sh(lines).unwrap_or_else(|complaint| panic!("{lines}: {complaint}"))
    }

    fn until(&self, lines: &str) {
        let began = Instant::now();
        while let Err(complaint) = self.sh(lines) {
            assert!(began.elapsed() < DEADLINE, "{lines}: {complaint}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// The project as cloned, and the two images that its own image is built from.
    fn clones(&self) {
        let manifest = env!("CARGO_MANIFEST_DIR");
        let wanted = "Cargo.toml Cargo.lock Dockerfile .dockerignore .cargo .ci config src";
        self.types(&format!("cd {manifest} && cp -a {wanted} {}/", self.at("project").display()));

        let compiler = self.at("compiler");
        std::fs::create_dir_all(compiler.join("toolchain/share/doc/rust")).expect("it is ours");
        let cargo = "#!/bin/sh\ncase \"$*\" in\n\
            'auditable build --profile dist --locked --bin cohortd')\n\
            mkdir -p target/dist && cp /toolchain/cohortd target/dist/ ;;\n\
            tree*|'install --locked cargo-auditable'*) ;;\n*) exit 1 ;;\nesac\n";
        write_program(&compiler.join("toolchain/cargo"), cargo);
        write_program(&compiler.join("toolchain/rustc"), "#!/bin/sh\necho /toolchain\n");
        std::fs::write(compiler.join("toolchain/share/doc/rust/COPYRIGHT"), "")
            .expect("it is ours");
        strip_into(&compiler.join("toolchain/cohortd"));
        let links =
            "bin sbin lib lib64".split(' ').map(|name| format!("ln -s usr/{name} {name}; "));
        let links: String = links.collect();
        self.types(&format!("cd {} && mkdir usr tmp && {links}", compiler.display()));
        self.makes(&compiler, "rust:1.90-slim-bookworm", "/toolchain:/usr/bin:/bin");

        let plain = self.at("plain");
        for library in libraries_of(&compiler.join("toolchain/cohortd")) {
            let there = plain.join(library.strip_prefix("/").expect("they are whole paths"));
            std::fs::create_dir_all(there.parent().expect("a folder")).expect("it is ours");
            std::fs::copy(&library, there).expect("it can be read");
        }
        for folder in ["etc", "tmp"] {
            std::fs::create_dir_all(plain.join(folder)).expect("it is ours");
        }
        let users =
            "root:x:0:0:root:/root:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/:/sbin/nologin\n";
        std::fs::write(plain.join("etc/passwd"), users).expect("it is ours");
        trust_somebody(&plain);
        let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        self.makes(&plain, "gcr.io/distroless/cc-debian12:nonroot", path);
    }

    fn makes(&self, root: &Path, name: &str, path: &str) {
        let recipe = format!("FROM scratch\nCOPY . /\nENV PATH={path}\n");
        std::fs::write(self.at("recipe"), recipe).expect("it is ours");
        let (recipe, root) = (self.at("recipe"), root.display());
        self.types(&format!("docker build -q -t {name} -f {} {root}", recipe.display()));
    }

    /// Creates the secrets and the configuration from the README, with LaunchDarkly's values filled in.
    fn sets_up(&self) {
        self.types(&pages::lines_with("openssl rand -hex 32 > segment-secret"));
        let toml = pages::file_with("toml", "service_token_file = \"launchdarkly-token\"");
        let toml = toml.replace("replace-with-the-client-side-id", "64f0c0ffee");
        let project = self.at("project");
        std::fs::write(project.join("cohortd.toml"), toml).expect("it is ours");
        self.types("umask 077; echo api-a-token-of-launchdarkly > launchdarkly-token");
    }
}

fn write_program(path: &Path, text: &str) {
    std::fs::write(path, text).expect("it is ours");
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).expect("it is ours");
}

/// Writes the tested binary without its debug information.
pub fn strip_into(file: &Path) {
    let mut strip = Command::new("strip");
    strip.arg("-o").arg(file).arg(env!("CARGO_BIN_EXE_cohortd"));
    assert!(strip.status().expect("it comes with the compiler").success());
}

/// Installs a trusted CA on a machine: without any, nothing is delivered over https.
pub fn trust_somebody(root: &Path) {
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&key).expect("it signs itself");
    let folder = root.join("etc/ssl/certs");
    std::fs::create_dir_all(&folder).expect("it is ours");
    std::fs::write(folder.join("ca-certificates.crt"), certificate.pem()).expect("it is ours");
}

/// The libraries that the dynamic linker loads, and the linker itself.
fn libraries_of(binary: &Path) -> Vec<PathBuf> {
    let said = Command::new("ldd").arg(binary).output().expect("it comes with the C library");
    let said = String::from_utf8(said.stdout).expect("it writes text");
    let paths =
        said.lines().filter_map(|line| line.split_whitespace().find(|of| of.starts_with('/')));
    paths.map(PathBuf::from).collect()
}

fn the_image_is_made_runs_without_rights_moves_an_old_ledger_and_gives_it_back() {
    let engine = Engine::new();
    engine.clones();
    engine.sets_up();
    let lines = pages::lines_with("docker build -t cohortd");
    let (build, run) = pages::before(&lines, "docker run -d ");
    let (run, status) = pages::before(run, "docker exec ");
    let checked = engine.types(build);
    assert!(checked.contains("configuration is good") && !checked.contains("warning"), "{checked}");
    let labels = engine.types("docker image inspect cohortd --format '{{json .Labels}}'");
    let labels: serde_json::Value = serde_json::from_str(&labels).expect("it is JSON");
    let ours = labels.as_object().expect("a map").iter();
    let ours = ours.filter(|(name, _)| name.starts_with("org.opencontainers.image."));
    assert!(ours.clone().count() >= 7, "{labels}");
    assert!(
        ours.clone().all(|(_, value)| value.as_str().is_some_and(|of| !of.is_empty())),
        "{labels}"
    );
    assert_eq!(labels["org.opencontainers.image.version"], env!("CARGO_PKG_VERSION"));
    assert_ne!(labels["org.opencontainers.image.revision"], "unknown");

    // As in 0.1.0, where the ledger was the volume.
    engine.types(&run.replace(" cohortd\n", " -e COHORTD_LEDGER__PATH=/var/lib/cohortd cohortd\n"));
    engine.until("docker exec cohortd cohortd healthcheck");
    let sent = engine.types("docker exec cohortd cohortd send --user eve --audience vip --enter");
    assert!(sent.contains("\"accepted\":1"), "{sent}");
    engine.types("docker rm --force --time 15 cohortd");
    let volume = engine.types("docker volume inspect cohortd-ledger --format '{{.Mountpoint}}'");
    let volume = Path::new(volume.trim());
    assert!(volume.join("ledger.db").exists());

    engine.types(run);
    engine.until("docker exec cohortd cohortd healthcheck");
    let is_shown = engine.types(status);
    assert!(is_shown.contains("production"), "{is_shown}");
    assert!(!volume.join("ledger.db").exists() && volume.join("ledger/ledger.db").exists());
    engine.types("docker healthcheck run cohortd");
    let state = "{{.Config.User}} {{.HostConfig.ReadonlyRootfs}} {{.EffectiveCaps}}";
    assert_eq!(
        engine.types(&format!("docker inspect cohortd --format '{state}'")),
        "65532:65532 true []\n"
    );
    engine.sh("docker exec cohortd sh -c true").expect_err("there is no shell");

    // From outside of the container, through both ports.
    let outside = format!(
        "COHORTD_LISTEN__ADDRESS=127.0.0.1:8080 COHORTD_ADMIN__ADDRESS=127.0.0.1:8081 \
         COHORTD_ADMIN__TOKENS_FILE=admin-token {}",
        env!("CARGO_BIN_EXE_cohortd")
    );
    engine.types(&format!("{outside} healthcheck"));
    let members = engine.types(&format!("{outside} member production eve"));
    assert!(members.contains("vip"), "{members}");

    // Takes a backup that holds only eve, and restores it later.
    let backup = pages::lines_with("docker exec cohortd cohortd ledger backup");
    let (backup, stop) = pages::before(&backup, "docker stop");
    let (stop, restore) = pages::before(stop, "docker run");
    engine.types(backup);
    engine.types("docker exec cohortd cohortd send --user ada --audience vip --enter");
    engine.types(stop);
    let ended = engine.types("docker inspect cohortd --format '{{.State.ExitCode}}'");
    assert_eq!(ended, "0\n", "it ends well, and in time");
    engine.types(restore);
    engine.until("docker exec cohortd cohortd healthcheck");
    let exported = engine.types("docker exec cohortd cohortd ledger export");
    assert!(exported.contains("\"eve\"") && !exported.contains("\"ada\""), "{exported}");
}

/// Each container of `compose.yaml` finds its secrets, and rotating a secret by a rename is noticed.
fn the_folders_of_secrets_are_those_that_compose_mounts() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let secrets = pages::lines_with("config/secrets/cohortd/segment-bearer");
    let (secrets, _) = pages::before(&secrets, "docker compose ");
    let made = "umask 077; mkdir config; touch launchdarkly-token; ";
    let made = format!("{made}{}", pages::lines_with("openssl rand -hex 32 > segment-secret"));
    let shell = Command::new("sh")
        .args(["-euc", &format!("{made}{secrets}")])
        .current_dir(folder.path())
        .status();
    assert!(shell.expect("it was looked for").success());
    let compose = include_str!("../../config/compose.yaml");
    let compose: serde_json::Value = serde_saphyr::from_str(compose).expect("it is YAML");
    let permissions = |path: &Path| {
        let of =
            std::fs::metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        of.permissions().mode() & 0o777
    };
    assert_eq!(permissions(&folder.path().join("config/secrets")), 0o700, "nobody else gets in");
    let mut read = 0;
    for (name, service) in compose["services"].as_object().expect("a map") {
        let mounts = service["volumes"].as_array().expect("a list").iter();
        let mounts: Vec<(&str, &str)> = mounts
            .filter_map(|mount| mount.as_str()?.strip_prefix("./secrets/")?.strip_suffix(":ro"))
            .map(|mount| mount.split_once(':').expect("from and to"))
            .collect();
        let variables = service["environment"].as_object().into_iter().flatten();
        let files = variables.filter(|(name, _)| name.ends_with("_FILE")).map(|(_, file)| file);
        for file in files.map(|file| file.as_str().expect("text")) {
            let found = mounts.iter().find_map(|(from, to)| {
                let inside = file.strip_prefix(to)?.strip_prefix('/')?;
                Some(folder.path().join("config/secrets").join(from).join(inside))
            });
            let found = found.unwrap_or_else(|| panic!("{name} has no {file}"));
            assert_eq!(permissions(&found), 0o644, "{name}: any user may read {file}");
            read += 1;
        }
    }
    assert!(read >= 6, "{read}");
}

tests![
    the_image_is_made_runs_without_rights_moves_an_old_ledger_and_gives_it_back
        .needs(&CONTAINERS)
        .needs(&OPENSSL),
    the_folders_of_secrets_are_those_that_compose_mounts.needs(&OPENSSL),
];
