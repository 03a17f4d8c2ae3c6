//! Reading the files that a configuration consists of: regular ones only, through whatever links lead there.
//!
//! A pipe with nobody at its other end would keep a start, a reload or a command waiting for ever, a device would
//! have no end, and neither could be read again when the configuration is.

use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

/// What is in the file, or why it cannot be read.
///
/// # Errors
/// Those of the system, and [`io::ErrorKind::InvalidInput`] for what is no regular file.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    // Not to wait for whoever writes into a pipe; of no meaning for a regular file.
    let at_once = OFlags::NONBLOCK.bits().cast_signed();
    let mut file = OpenOptions::new().read(true).custom_flags(at_once).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(other(metadata.file_type()));
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn other(kind: fs::FileType) -> io::Error {
    if kind.is_dir() {
        return io::ErrorKind::IsADirectory.into();
    }
    let what = if kind.is_fifo() {
        "a pipe"
    } else if kind.is_char_device() || kind.is_block_device() {
        "a device"
    } else {
        "a socket"
    };
    io::Error::new(io::ErrorKind::InvalidInput, format!("it is {what}; a regular file is expected"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::sync::mpsc;
    use std::time::Duration;

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    #[test]
    fn only_regular_files_are_read_and_nothing_is_waited_for() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = |name: &str| folder.path().join(name);
        fs::write(path("file"), "text").expect("it is ours");
        symlink("file", path("link")).expect("it is ours");
        let owner = Mode::RUSR | Mode::WUSR;
        mknodat(CWD, path("pipe"), FileType::Fifo, owner, 0).expect("a pipe");
        symlink("pipe", path("link-to-pipe")).expect("it is ours");
        let table = [
            (path("file"), Ok("text")),
            (path("link"), Ok("text")),
            (path("pipe"), Err("it is a pipe; a regular file is expected")),
            (path("link-to-pipe"), Err("it is a pipe; a regular file is expected")),
            ("/dev/zero".into(), Err("it is a device; a regular file is expected")),
            (folder.path().into(), Err("is a directory")),
        ];
        for (path, expected) in table {
            let (answer, answered) = mpsc::channel();
            let asked = path.clone();
            std::thread::spawn(move || answer.send(read(&asked)));
            let read = answered.recv_timeout(Duration::from_secs(10)).expect("at once");
            let read = read.map_err(|error| error.to_string());
            let read = read.map(|bytes| String::from_utf8(bytes).expect("it is text"));
            assert_eq!(read.as_deref().map_err(String::as_str), expected, "{}", path.display());
        }
    }
}
