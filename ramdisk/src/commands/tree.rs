//! `levitate services`: every service with its state, and below it what it needs, for people.

use std::collections::BTreeSet;

use super::Context;
use super::ask::Live;
use super::graph::Way;
use crate::init::snapshot::Entry;

pub(super) fn run(context: &mut Context<'_>) -> u8 {
    match context.live() {
        Ok(live) => context.print(render(&live).as_bytes()),
        Err(_) => 1,
    }
}

/// Those first that nothing needs; what was shown once is only named.
fn render(live: &Live) -> String {
    let mut rows: Vec<(String, &Entry, bool)> = Vec::new();
    let mut shown = BTreeSet::new();
    let atomics = live.graph.atomics();
    let is_root = |name: &&String| live.graph.direct(name, Way::NeededBy).is_empty();
    for root in atomics.iter().filter(is_root) {
        // Without recursion: a chain may be as long as the set.
        let mut todo = vec![(root.clone(), String::new(), String::new())];
        while let Some((name, lead, below)) = todo.pop() {
            let Some(entry) = live.get(&name) else { continue };
            let is_new = shown.insert(name.clone());
            rows.push((format!("{lead}{name}"), entry, is_new));
            if !is_new {
                continue;
            }
            let needs = live.graph.direct(&name, Way::Needs);
            for (n, need) in needs.iter().rev().enumerate() {
                let (fork, onwards) = if n == 0 { ("└─ ", "   ") } else { ("├─ ", "│  ") };
                todo.push((need.clone(), format!("{below}{fork}"), format!("{below}{onwards}")));
            }
        }
    }
    let width = rows.iter().map(|(name, ..)| name.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for (name, entry, is_new) in rows {
        let what = if is_new { about(entry) } else { "(see above)".to_owned() };
        text.push_str(&format!("{name:width$}  {what}\n"));
    }
    let bundles: Vec<String> = live
        .entries
        .iter()
        .filter(|entry| entry.kind == "bundle")
        .map(|entry| format!("bundle {}: {}\n", entry.name, entry.members.join(", ")))
        .collect();
    text + &bundles.concat()
}

fn about(entry: &Entry) -> String {
    let mut text = format!("{:8} {:>6}", entry.state, duration(entry.seconds));
    if let Some(pid) = entry.pid {
        text.push_str(&format!("  pid {pid}"));
    }
    if entry.kind == "oneshot" {
        text.push_str("  oneshot");
    }
    match entry.restarts {
        0 => {}
        1 => text.push_str("  1 restart"),
        n => text.push_str(&format!("  {n} restarts")),
    }
    if let Some(controller) = &entry.controlled_by {
        text.push_str(&format!("  controlled by {controller}"));
    }
    if let Some(failure) = &entry.failure {
        text.push_str(&format!("  {failure}"));
    }
    text.truncate(text.trim_end().len());
    text
}

/// `42 s`, `3 min`, `5 h`, `12 d`.
fn duration(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::super::graph::Graph;
    use super::*;

    fn entry(name: &str, needs: &[&str]) -> Entry {
        Entry {
            name: name.into(),
            kind: "longrun".into(),
            state: "up".into(),
            wanted: true,
            pid: Some(42),
            seconds: 200,
            needs: needs.iter().map(|need| (*need).to_owned()).collect(),
            members: vec![name.to_owned()],
            ..Entry::default()
        }
    }

    #[test]
    fn the_tree_shows_each_service_once_with_what_it_needs_below_it() {
        let mut keys = entry("keys", &["net"]);
        keys.kind = "oneshot".into();
        keys.pid = None;
        let mut modem = entry("modem", &["plug"]);
        (modem.state, modem.pid, modem.controlled_by) = ("down".into(), None, Some("plug".into()));
        let mut plug = entry("plug", &[]);
        (plug.restarts, plug.seconds) = (2, 7);
        let mut broken = entry("broken", &[]);
        (broken.state, broken.pid, broken.failure) =
            ("failed".into(), None, Some("not ready in time".into()));
        let bundle = Entry {
            kind: "bundle".into(),
            members: vec!["plug".into(), "sshd".into()],
            ..entry("default", &[])
        };
        let entries =
            vec![broken, bundle, keys, modem, entry("net", &[]), plug, entry("sshd", &["keys", "net"])];
        let live = Live { graph: Graph::of_entries(&entries), entries };
        assert_eq!(
            render(&live),
            "\
broken     failed    3 min  not ready in time
modem      down      3 min  controlled by plug
└─ plug    up          7 s  pid 42  2 restarts
sshd       up        3 min  pid 42
├─ keys    up        3 min  oneshot
│  └─ net  up        3 min  pid 42
└─ net     (see above)
bundle default: plug, sshd
"
        );
    }
}
