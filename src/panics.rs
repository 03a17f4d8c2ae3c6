//! The part of a panic's message that may be logged.

use std::any::Any;

/// In a panic message, one of these comes before any value it quotes, such as a string sliced within a
/// character or an error.
const QUOTES: [char; 4] = ['`', '\'', '"', ':'];

/// The message of a panic up to the first quoted value, which may be personal data
/// ([P8](crate::design::P8)). The log line about the panic has its location.
#[must_use]
pub fn message(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let text = text.unwrap_or("no message");
    text.split(QUOTES).next().unwrap_or_default().trim_end()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(panics: impl FnOnce() + std::panic::UnwindSafe) -> String {
        let payload = std::panic::catch_unwind(panics).expect_err("it panics");
        message(&*payload).to_owned()
    }

    #[test]
    fn a_panic_is_told_without_the_values_in_its_message() {
        assert_eq!(said(|| panic!("the end")), "the end");
        let bytes = vec![0; std::process::id().min(3) as usize];
        let told = said(move || drop(bytes[9..].to_vec()));
        assert_eq!(told, "range start index 9 out of range for slice of length 3");
        let told = said(|| drop("ada@exämple.com"[..7].to_owned()));
        assert!(!told.contains("ada") && !told.is_empty(), "{told}");
        let told = said(|| {
            "ada@example.com".parse::<f64>().expect("it is there");
        });
        assert_eq!(told, "it is there");
        assert_eq!(said(|| std::panic::panic_any(7)), "no message");
    }
}
