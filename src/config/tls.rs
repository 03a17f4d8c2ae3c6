//! `[listen.tls]` and `[admin.tls]`: a listener that speaks TLS.

use std::path::PathBuf;

use super::secrets::looks_like_a_secret;
use super::section::{Named, Section};
use crate::clock::{Clock, SystemClock};
use crate::receive::tls::{TlsFiles, chain_of};

/// A certificate is warned about when it expires within this time: most are renewed a month before.
const WARNED_S: i64 = 14 * 86_400;

/// Reads the section and checks the files it names; `None` if there is no section.
pub(super) fn read(listener: &mut Section<'_>) -> Option<TlsFiles> {
    if !listener.has("tls") {
        return None;
    }
    let mut section = listener.section("tls");
    let files = files(&mut section);
    if let Some(files) = &files {
        check(files, &section);
    }
    section.finish();
    files
}

/// Reads the paths without opening the files.
pub(super) fn files(section: &mut Section<'_>) -> Option<TlsFiles> {
    let certificate_file = needed(section, "certificate_file");
    let key_file = needed(section, "key_file");
    let client_ca_file = path(section, "client_ca_file");
    section.is_clean().then_some(())?;
    Some(TlsFiles { certificate_file: certificate_file?, key_file: key_file?, client_ca_file })
}

fn needed(section: &mut Section<'_>, key: &'static str) -> Option<PathBuf> {
    if !section.has(key) {
        section.missing(key, None, "");
    }
    path(section, key)
}

fn path(section: &mut Section<'_>, key: &'static str) -> Option<PathBuf> {
    let Named { text, path } = section.path(key)?;
    if text.contains("-----BEGIN") || looks_like_a_secret(&text) {
        section.fault(key, None, "contains what should be in a file; a path is expected");
        return None;
    }
    Some(path)
}

fn check(files: &TlsFiles, section: &Section<'_>) {
    let mut pair = files.read();
    if pair.is_err() {
        files.paths().for_each(|path| section.note(path));
        pair = files.read(); // may have been repaired before it was recorded
    }
    match pair {
        Ok(pair) => {
            section.warn_of_file("key_file", &files.key_file);
            let now = SystemClock.now().0.div_euclid(1_000_000);
            let end = i64::try_from(pair.not_after_s).unwrap_or(i64::MAX);
            let at = jiff::Timestamp::from_second(end)
                .map_or_else(|_| String::new(), |at| at.to_string());
            if end <= now {
                let text = format!("has expired ({at}) and clients refuse it: replace it");
                section.warn("certificate_file", &text);
            } else if end - now < WARNED_S {
                section.warn("certificate_file", &format!("expires soon ({at})"));
            }
        }
        Err(faults) => {
            for (key, fault) in faults {
                let path = match key {
                    "key_file" => Some(&files.key_file),
                    "client_ca_file" => files.client_ca_file.as_ref(),
                    _ => Some(&files.certificate_file),
                };
                section.fault(
                    key,
                    path.map(|path| format!("\"{}\"", path.display())),
                    chain_of(&fault),
                );
            }
        }
    }
}
