//! OpenWrt's procd as PID 1. Not run on a device: written after its documented interface, which is that the ubus call
//! `system sysupgrade` with `prefix`, `path` and `command` makes procd chroot to the prefix and execute
//! `/sbin/upgraded PATH COMMAND` there as PID 1, the watchdog's descriptor in `WDTFD`, with every process alive and the
//! old root mounted. The call is made by a `reboot` in front of the system's own.

use std::path::Path;

use ramdisk::path::Root;

use super::front::{self, Found};
use super::{ARM, Hook, Step};

const REBOOT: &str = "\
#!/bin/sh
if [ $# = 0 ] && [ -x @ENTRY@ ]; then
    ubus call system sysupgrade '{\"prefix\":\"/run/maintenance\",\"path\":\"/exec\",\"command\":\"reboot\",\"force\":true}'
    sleep 10
    echo 'levitate: procd did not hand over; rebooting' >&2
fi
exec @REBOOT@ \"$@\"
";

pub(super) fn hook(root: &Root) -> Hook {
    let ubus = front::DIRECTORIES.iter().any(|dir| root.resolve(&Path::new(dir).join("ubus")).is_ok());
    decide(ubus, &front::look(root))
}

fn decide(ubus: bool, found: &[Found]) -> Hook {
    if !ubus {
        return Hook::NotWired {
            reason: "procd hands over by the ubus call `system sysupgrade`, and there is no program ubus"
                .to_owned(),
            remedy: Some("install ubus".to_owned()),
        };
    }
    let Some(first) = found.first() else {
        return Hook::not("no program reboot was found".to_owned());
    };
    let by = first.folder.join("reboot");
    let mut steps = front::steps(found, REBOOT);
    if !steps.is_empty() {
        steps.insert(0, Step::Directory { path: ARM.into() });
    }
    Hook::Wired { by, steps }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;

    use super::*;
    use crate::fixture;

    fn script() -> String {
        let found = Found {
            folder: "/sbin".into(),
            real: "/bin/busybox".into(),
            busybox: true,
            linuxrc: false,
            entries: vec![("reboot".into(), Some("../bin/busybox".into()))],
        };
        let Hook::Wired { steps, .. } = decide(true, &[found]) else { panic!() };
        match &steps[1] {
            Step::File { text, .. } => text.clone(),
            other => panic!("{other}"),
        }
    }

    /// The script with a scripted ubus and a scripted busybox; says what they were asked.
    fn run(staged: bool, args: &[&str]) -> String {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let program = |name: &str, text: &str| fixture::program(&at(name), text);
        let log = at("log").display().to_string();
        program("ubus", &format!("#!/bin/sh\necho ubus \"$@\" >> {log}\n"));
        program("busybox", &format!("#!/bin/sh\necho busybox \"$@\" >> {log}\n"));
        program("sleep", "#!/bin/sh\n");
        if staged {
            program("exec", "");
        }
        let entry = at("exec").display().to_string();
        let text = script().replace(super::super::ENTRY, &entry);
        program("reboot", &text.replace("/bin/busybox", &at("busybox").display().to_string()));
        let path = format!("{}:/usr/bin:/bin", dir.path().display());
        assert!(Command::new(at("reboot")).args(args).env("PATH", path).status().unwrap().success());
        fs::read_to_string(log).unwrap()
    }

    #[test]
    fn reboot_asks_procd_to_execute_in_the_staged_root_and_falls_back_to_the_systems_own() {
        assert_eq!(
            run(true, &[]),
            "ubus call system sysupgrade {\"prefix\":\"/run/maintenance\",\"path\":\"/exec\",\"command\":\"reboot\",\"force\":true}\n\
             busybox reboot\n"
        );
        assert_eq!(run(false, &[]), "busybox reboot\n");
        assert_eq!(run(true, &["-f"]), "busybox reboot -f\n");
    }

    #[test]
    fn without_ubus_it_is_refused() {
        assert!(matches!(decide(false, &[]), Hook::NotWired { remedy: Some(_), .. }));
    }
}
