//! What a dry run shows: the plan in numbers, a map of the partition, and about how long it takes.

use crate::estimate::Part;
use crate::map::{Map, Mark};
use crate::plan::Summary;

/// Characters in a line of the map, and lines at most.
const COLUMNS: usize = 64;
const LINES: usize = 16;

/// The map's lines and its legend.
pub(super) fn picture(map: &Map) -> String {
    let group = map.group(COLUMNS * LINES);
    let characters: Vec<char> = map.characters(group).chars().collect();
    let mut text = String::new();
    for (line, characters) in characters.chunks(COLUMNS).enumerate() {
        let start = map.blocks.get(line * COLUMNS * group).map_or(0, |(start, ..)| *start);
        text.push_str(&format!("{start:#010x} {}\n", characters.iter().collect::<String>()));
    }
    let sizes: Vec<u64> = map.blocks.iter().map(|(_, len, _)| *len).collect();
    let size = match (sizes.iter().min(), sizes.iter().max()) {
        (Some(least), Some(most)) if least != most => format!("{least} to {most}"),
        (_, most) => most.copied().unwrap_or(0).to_string(),
    };
    text.push_str(&match group {
        1 => format!("one character for each block of {size} bytes:\n"),
        _ => format!("one character for {group} blocks of {size} bytes, that of the dearest of them:\n"),
    });
    for mark in Mark::ALL {
        let of_it = || map.blocks.iter().filter(|(.., other)| *other == mark);
        let (blocks, bytes) = (of_it().count(), of_it().map(|(_, len, _)| len).sum::<u64>());
        if blocks > 0 {
            let (character, meaning) = (mark.character(), mark.meaning());
            text.push_str(&format!("  {character} {meaning}: {blocks} blocks, {bytes} bytes\n"));
        }
    }
    text
}

/// The plan in numbers.
pub(super) fn planned(plan: &Summary) -> String {
    format!(
        "{} blocks: {} kept, {} to erase, {} to program ({} bytes at most)\n",
        plan.blocks, plan.kept, plan.erases, plan.programs, plan.program_bytes
    )
}

/// About how long it takes.
pub(super) fn time(map: &Map) -> String {
    let Some(part) = Part::typical(map.kind) else { return String::new() };
    let time = part.time(map);
    let text = match time.as_secs() {
        0..10 => format!("{}.{} s", time.as_secs(), time.subsec_millis() / 100),
        seconds @ 10..120 => format!("{seconds} s"),
        seconds => format!("{} min", (seconds + 30) / 60),
    };
    format!("about {text} on a typical chip (by the data sheet of {})\n", part.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Kind;

    #[test]
    fn the_picture_has_a_map_a_legend_and_a_time() {
        let mut blocks: Vec<_> = (0..100).map(|number| (number * 0x1000, 0x1000, Mark::Keep)).collect();
        blocks[0].2 = Mark::Head;
        blocks[70].2 = Mark::Rewrite;
        blocks[99].2 = Mark::Outside;
        let map = Map { kind: Kind::SpiNor, blocks };
        assert_eq!(
            picture(&map),
            format!(
                "0x00000000 H{}\n0x00040000 {}w{}.\none character for each block of 4096 bytes:\n  \
                 . behind the image, left alone: 1 blocks, 4096 bytes\n  \
                 = kept: 97 blocks, 397312 bytes\n  \
                 w erased and programmed: 1 blocks, 4096 bytes\n  \
                 H head: invalid first, completed last: 1 blocks, 4096 bytes\n",
                "=".repeat(63),
                "=".repeat(6),
                "=".repeat(28)
            )
        );
        assert_eq!(time(&map), "about 0.1 s on a typical chip (by the data sheet of W25Q128JV)\n");
        assert_eq!(time(&Map { kind: Kind::Ram, ..map }), "");
    }

    #[test]
    fn a_large_partition_fits_a_screen_and_mixed_blocks_are_told() {
        let block = |number: u64| match number {
            0..8 => (number * 0x2000, 0x2000, Mark::Rewrite),
            _ => ((number - 7) * 0x1_0000, 0x1_0000, Mark::Rewrite),
        };
        let map = Map { kind: Kind::ParallelNor, blocks: (0..4103).map(block).collect() };
        let text = picture(&map);
        assert!(text.lines().count() <= LINES + 3, "{text}");
        assert!(text.lines().all(|line| line.len() < 80), "{text}");
        assert!(
            text.contains("\none character for 5 blocks of 8192 to 65536 bytes, that of the dearest"),
            "{text}"
        );
        assert!(text.starts_with("0x00000000 www"), "{text}");
        assert!(text.contains("\n0x01390000 www"), "{text}");
        assert_eq!(time(&map), "about 22 min on a typical chip (by the data sheet of S29GL128S)\n");
    }
}
