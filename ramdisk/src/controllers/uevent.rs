//! The kernel's words about devices, and the terms that choose among them. Pure.

use std::collections::BTreeMap;

use crate::wildcard::matches;

/// What happened to a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Event {
    /// `add`, `remove`, `change`, `move`, `bind`, ...
    pub(super) action: String,
    /// Its place below /sys, with a slash in front.
    pub(super) devpath: String,
    /// SUBSYSTEM, DEVNAME, DEVTYPE and others, by the kernel's names.
    pub(super) properties: BTreeMap<String, String>,
}

/// Reads a message of the kernel's: `ACTION@DEVPATH`, then `KEY=VALUE`, each ended by a zero byte. None for what is not
/// one (udev's own messages begin differently).
pub(super) fn parse_event(message: &[u8]) -> Option<Event> {
    let mut parts = message.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    let (action, devpath) =
        parts.next().as_deref()?.split_once('@').map(|(a, d)| (a.to_owned(), d.to_owned()))?;
    if action.is_empty() || !devpath.starts_with('/') || devpath.split('/').any(|part| part == "..") {
        return None;
    }
    let pair = |part: std::borrow::Cow<'_, str>| {
        part.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()))
    };
    Some(Event { action, devpath, properties: parts.filter_map(pair).collect() })
}

/// The properties in a device's file `uevent`: a `KEY=VALUE` a line.
pub(super) fn parse_properties(text: &str) -> BTreeMap<String, String> {
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// Something that has to be true of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Term {
    /// `subsystem=tty`: a property, in any case of letters.
    Property(String, String),
    /// `attr.vendor=0x1af4`: a file in the device's folder.
    Attribute(String, String),
    /// `attrs.idVendor=0bda`: such a file there or in a folder above.
    Inherited(String, String),
}

impl Term {
    /// Reads a word of the command line. None if it is no `NAME=PATTERN`.
    pub(super) fn parse(word: &str) -> Option<Self> {
        let (name, pattern) = word.split_once('=')?;
        let is_file = |name: &str| !name.is_empty() && !name.starts_with('/') && !name.contains("..");
        let pattern = pattern.to_owned();
        if let Some(file) = name.strip_prefix("attr.") {
            return is_file(file).then(|| Self::Attribute(file.to_owned(), pattern));
        }
        if let Some(file) = name.strip_prefix("attrs.") {
            return is_file(file).then(|| Self::Inherited(file.to_owned(), pattern));
        }
        (!name.is_empty()).then(|| Self::Property(name.to_ascii_uppercase(), pattern))
    }

    /// Whether it is true of the device at `devpath`; `attribute` reads a file of a folder below /sys.
    fn holds(
        &self,
        devpath: &str,
        properties: &BTreeMap<String, String>,
        attribute: &dyn Fn(&str, &str) -> Option<String>,
    ) -> bool {
        match self {
            Self::Property(key, pattern) => properties.get(key).is_some_and(|value| matches(pattern, value)),
            Self::Attribute(file, pattern) => {
                attribute(devpath, file).is_some_and(|value| matches(pattern, &value))
            }
            Self::Inherited(file, pattern) => {
                let ends =
                    devpath.char_indices().filter(|(_, c)| *c == '/').map(|(n, _)| n).chain([devpath.len()]);
                let mut folders = ends.filter(|end| *end > 0).filter_map(|end| devpath.get(..end));
                folders.any(|folder| attribute(folder, file).is_some_and(|value| matches(pattern, &value)))
            }
        }
    }
}

/// Whether all terms are true of a device.
pub(super) fn all_hold(
    terms: &[Term],
    devpath: &str,
    properties: &BTreeMap<String, String>,
    attribute: &dyn Fn(&str, &str) -> Option<String>,
) -> bool {
    terms.iter().all(|term| term.holds(devpath, properties, attribute))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_message_is_read_and_udevs_is_not() {
        let event =
            parse_event(b"add@/devices/pci0/usb1/tty/ttyUSB0\0ACTION=add\0SUBSYSTEM=tty\0DEVNAME=ttyUSB0\0")
                .unwrap();
        assert_eq!(
            (event.action.as_str(), event.devpath.as_str()),
            ("add", "/devices/pci0/usb1/tty/ttyUSB0")
        );
        assert_eq!(event.properties["DEVNAME"], "ttyUSB0");
        for bad in
            [&b"libudev\0\xfe\xed\xca\xfe"[..], b"", b"add@devices\0", b"@/devices\0", b"add@/a/../b\0"]
        {
            assert_eq!(parse_event(bad), None);
        }
    }

    #[test]
    fn a_device_is_chosen_by_properties_and_by_attributes_of_its_own_or_above_it() {
        let properties = parse_properties("DEVNAME=ttyUSB0\nSUBSYSTEM=tty\nnonsense\n");
        let attribute = |folder: &str, file: &str| match (folder, file) {
            ("/devices/usb1/1-1", "idVendor") => Some("0bda".to_owned()),
            ("/devices/usb1/1-1/tty/ttyUSB0", "dev") => Some("188:0".to_owned()),
            _ => None,
        };
        let holds = |words: &str| {
            let terms: Vec<Term> = words.split(' ').map(|word| Term::parse(word).unwrap()).collect();
            all_hold(&terms, "/devices/usb1/1-1/tty/ttyUSB0", &properties, &attribute)
        };
        for yes in [
            "subsystem=tty",
            "devname=ttyUSB*",
            "attr.dev=188:?",
            "attrs.idVendor=0bda subsystem=tty",
            "attrs.dev=*",
        ] {
            assert!(holds(yes), "{yes}");
        }
        for no in [
            "subsystem=usb",
            "devtype=*",
            "attr.idVendor=0bda",
            "attrs.idVendor=0bdb",
            "subsystem=tty devname=x*",
        ] {
            assert!(!holds(no), "{no}");
        }
        for bad in ["subsystem", "=x", "attr.=x", "attrs.../../etc/shadow=x", "attr./etc/shadow=x"] {
            assert_eq!(Term::parse(bad), None, "{bad}");
        }
    }
}
