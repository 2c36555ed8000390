//! What the C library calls an error: texts in the tests are glibc's.

/// Errors by their number, as glibc words them where others do not.
const WORDS: [(i32, &str); 3] =
    [(5, "Input/output error"), (16, "Device or resource busy"), (25, "Inappropriate ioctl for device")];

/// The text in the words of the library that this program is linked with.
pub(crate) fn here(text: &str) -> String {
    WORDS.iter().fold(text.to_owned(), |text, (number, words)| {
        let ours = std::io::Error::from_raw_os_error(*number).to_string();
        text.replace(&format!("{words} (os error {number})"), &ours)
    })
}
