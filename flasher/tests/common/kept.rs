//! Texts that were looked at, kept in `tests/texts/`.

use std::path::Path;

#[path = "system.rs"]
mod system;

/// Names every variant of an enum: a list, and a function that the compiler holds to it.
macro_rules! variants {
    ($function:ident, $names:ident, $kind:ident: $($variant:ident)*) => {
        const $names: &[&str] = &[$(concat!(stringify!($kind), "::", stringify!($variant))),*];
        fn $function(value: &$kind) -> &'static str {
            match value {
                $($kind::$variant { .. } => concat!(stringify!($kind), "::", stringify!($variant)),)*
            }
        }
    };
}

/// Compares with the kept file, or writes it.
pub(crate) fn kept(file: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/texts").join(file);
    if std::env::var_os("UPDATE_TEXTS").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let kept = system::here(&std::fs::read_to_string(&path).unwrap_or_default());
    for (kept, now) in kept.lines().zip(text.lines()) {
        assert_eq!(kept, now, "{file}");
    }
    assert!(kept == text, "{file} has other lines; UPDATE_TEXTS=1 writes it");
}
