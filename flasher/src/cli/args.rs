//! The command line.

use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, ValueEnum};

use crate::options::{BadBlocks, Check, ClearBits, Extent, Head, Mode, Options, Rest};

/// Written by hand: it fits 80 columns on every terminal, and says what the codes mean.
const HELP: &str = "\
Bring a firmware image onto a flash partition, and prove it.

Usage: flashcp [OPTIONS] IMAGE DEVICE

  IMAGE   the image, a file
  DEVICE  /dev/mtdN, mtdN, or mtd:NAME (the exact name from /proc/mtd);
          ubiN:NAME or /dev/ubiN_V is a UBI volume

Only erase blocks that differ are erased and programmed. The image's head is
made invalid first and completed last, after everything else was read back:
after a power cut the boot loader finds the old image, the new one, or none.
Flash that is in use is not written. Once the flash changes, a lost session
does not stop it; its report is in /run/levitate/flash.json.

Options:
  -v, --verbose       print progress also where there is no terminal
  -p, --partition     write only what differs (the default; accepted as it is)
  -A, --erase-all     erase the rest of the partition too
  -l, --wr-last=BYTES the size of the head (default: the first erase block)
      --head=auto     head invalid first, completed last (default)
      --head=keep     in plain order; a power cut may leave a valid head
      --full          rewrite blocks that do not differ, too
      --clear-bits    clear bits without an erase on parallel NOR as well
      --bad-blocks=refuse  no image over a bad block of NAND (default)
      --bad-blocks=skip  the image goes on in the next good block
      --bad-blocks=mark  the same; blocks that wear out are marked bad
      --dry-run       print what would be done, change nothing
      --verify-only   compare, change nothing
      --sha256=HEX    refuse any other image
      --any-content   write an image of another kind than the flash holds
      --allow-in-use  write although somebody uses it
  -h, --help          print this
  -V, --version       print the version

Examples:
  flashcp -v firmware.bin mtd:firmware
  flashcp --dry-run firmware.bin /dev/mtd5
  flashcp --verify-only firmware.bin mtd5

Exit codes:
  0  verified (--dry-run: possible; --verify-only: equal)
  1  failed, the flash is untouched
  2  wrong usage
  3  the flash was changed and is not verified: do not reboot, run it again
  4  verified, but the chip's locks could not be restored
  5  --verify-only: different
";

#[derive(Debug, Clone, Copy, ValueEnum)]
enum HeadArg {
    Auto,
    Keep,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum BadBlocksArg {
    Refuse,
    Skip,
    Mark,
}

/// The parsed command line.
#[derive(Debug, Parser)]
#[command(name = "flashcp", version, override_help = HELP)]
pub(super) struct Args {
    /// The image's file.
    #[arg(value_name = "IMAGE")]
    pub(super) image: PathBuf,
    /// The partition.
    #[arg(value_name = "DEVICE")]
    pub(super) device: String,
    #[arg(short, long)]
    pub(super) verbose: bool,
    #[arg(short, long)]
    partition: bool,
    #[arg(short = 'A', long)]
    erase_all: bool,
    #[arg(short = 'l', long = "wr-last", value_name = "BYTES", value_parser = bytes)]
    wr_last: Option<u64>,
    #[arg(long, value_enum, default_value = "auto", value_name = "WHEN")]
    head: HeadArg,
    #[arg(long)]
    full: bool,
    #[arg(long)]
    clear_bits: bool,
    #[arg(long, value_enum, default_value = "refuse", value_name = "WHAT")]
    bad_blocks: BadBlocksArg,
    #[arg(long, conflicts_with = "verify_only")]
    dry_run: bool,
    #[arg(long)]
    verify_only: bool,
    #[arg(long, value_name = "HEX", value_parser = digest)]
    sha256: Option<String>,
    #[arg(long)]
    any_content: bool,
    #[arg(long)]
    allow_in_use: bool,
}

impl Args {
    /// What parsing alone does not find.
    pub(super) fn checked(self) -> Result<Self, clap::Error> {
        if self.image.as_os_str() == "-" {
            return Err(usage(
                "this version does not read the image from standard input, because a connection that drops looks \
                 like the image's end; copy it first:\n  ssh DEVICE 'cat > /tmp/firmware.bin' < firmware.bin",
            ));
        }
        if self.wr_last.is_some() && matches!(self.head, HeadArg::Keep) {
            return Err(usage("--wr-last says what is completed last, --head=keep that nothing is"));
        }
        Ok(self)
    }

    /// The same, as the library takes it.
    pub(super) fn options(&self) -> Options {
        let check = |allow| if allow { Check::Allow } else { Check::Refuse };
        // Named so that it is not forgotten: what -p asks for is always done.
        let _ = self.partition;
        Options {
            mode: match (self.dry_run, self.verify_only) {
                (true, _) => Mode::DryRun,
                (false, true) => Mode::VerifyOnly,
                (false, false) => Mode::Write,
            },
            head: match self.head {
                HeadArg::Auto => Head::Auto,
                HeadArg::Keep => Head::Keep,
            },
            head_size: self.wr_last,
            extent: if self.full { Extent::Full } else { Extent::Differing },
            rest: if self.erase_all { Rest::Erase } else { Rest::Leave },
            in_use: check(self.allow_in_use),
            content: check(self.any_content),
            clear_bits: if self.clear_bits { ClearBits::Allow } else { ClearBits::WhereSafe },
            bad_blocks: match self.bad_blocks {
                BadBlocksArg::Refuse => BadBlocks::Refuse,
                BadBlocksArg::Skip => BadBlocks::Skip,
                BadBlocksArg::Mark => BadBlocks::Mark,
            },
            sha256: self.sha256.clone(),
        }
    }
}

fn usage(text: &str) -> clap::Error {
    Args::command().error(ErrorKind::ValueValidation, text)
}

/// `4096`, `0x1000`, `4k`, `1M`
fn bytes(text: &str) -> Result<u64, String> {
    let (digits, factor) = match text.char_indices().last() {
        Some((at, 'k' | 'K')) => (&text[..at], 1 << 10),
        Some((at, 'm' | 'M')) => (&text[..at], 1 << 20),
        _ => (text, 1),
    };
    let number = match digits.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => digits.parse::<u64>(),
    };
    match number.ok().and_then(|number| number.checked_mul(factor)) {
        Some(0) | None => Err("a number of bytes, such as 4096, 0x1000 or 4k, is needed".to_owned()),
        Some(number) => Ok(number),
    }
}

fn digest(text: &str) -> Result<String, String> {
    if text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        Ok(text.to_ascii_lowercase())
    } else {
        Err("a SHA-256 has 64 hexadecimal digits".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, clap::Error> {
        Args::try_parse_from(line.split(' ')).and_then(Args::checked).map(|args| args.options())
    }

    #[test]
    fn the_command_line_of_mtd_utils_is_understood() {
        assert_eq!(parse("flashcp -v fw.bin mtd5").unwrap(), Options::default());
        assert_eq!(parse("flashcp -p -v fw.bin mtd5").unwrap(), Options::default());
        assert_eq!(parse("flashcp --verbose --partition fw.bin /dev/mtd5").unwrap(), Options::default());
        assert_eq!(parse("flashcp -A fw.bin mtd5").unwrap().rest, Rest::Erase);
        assert_eq!(parse("flashcp --erase-all fw.bin mtd5").unwrap().rest, Rest::Erase);
        for line in ["-l 4096", "-l4096", "--wr-last=0x1000", "--wr-last 4k", "-p -l 4K"] {
            assert_eq!(
                parse(&format!("flashcp {line} fw.bin mtd5")).unwrap().head_size,
                Some(4096),
                "{line}"
            );
        }
    }

    #[test]
    fn every_option_reaches_the_library() {
        let all = "flashcp --head=keep --full --clear-bits --bad-blocks=skip --any-content --allow-in-use --sha256=";
        let options = parse(&format!("{all}{} fw.bin mtd5", "AB".repeat(32))).unwrap();
        assert_eq!(
            options,
            Options {
                head: Head::Keep,
                extent: Extent::Full,
                clear_bits: ClearBits::Allow,
                bad_blocks: BadBlocks::Skip,
                content: Check::Allow,
                in_use: Check::Allow,
                sha256: Some("ab".repeat(32)),
                ..Options::default()
            }
        );
        assert_eq!(parse("flashcp --dry-run fw.bin mtd5").unwrap().mode, Mode::DryRun);
        assert_eq!(parse("flashcp --verify-only fw.bin mtd5").unwrap().mode, Mode::VerifyOnly);
    }

    #[test]
    fn wrong_usage_exits_with_2() {
        for line in [
            "flashcp",
            "flashcp fw.bin",
            "flashcp fw.bin mtd5 more",
            "flashcp --nosuch fw.bin mtd5",
            "flashcp -l 0 fw.bin mtd5",
            "flashcp -l -5 fw.bin mtd5",
            "flashcp -l 4q fw.bin mtd5",
            "flashcp --head=never fw.bin mtd5",
            "flashcp --head=keep -l 64 fw.bin mtd5",
            "flashcp --sha256=12 fw.bin mtd5",
            "flashcp --dry-run --verify-only fw.bin mtd5",
            "flashcp - mtd5",
        ] {
            assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
        }
        for line in ["flashcp -h", "flashcp --help", "flashcp -V", "flashcp --version"] {
            assert_eq!(parse(line).unwrap_err().exit_code(), 0, "{line}");
        }
    }

    #[test]
    fn standard_input_is_refused_with_the_way_round() {
        let text = parse("flashcp - mtd5").unwrap_err().to_string();
        assert!(text.contains("does not read the image from standard input"), "{text}");
        assert!(text.contains("ssh DEVICE 'cat > /tmp/firmware.bin' < firmware.bin"), "{text}");
    }

    #[test]
    fn the_help_fits_eighty_columns_and_names_every_option() {
        let help = parse("flashcp --help").unwrap_err().to_string();
        for line in help.lines() {
            assert!(line.chars().count() < 80, "{line}");
        }
        for argument in Args::command().get_arguments() {
            if let Some(long) = argument.get_long() {
                assert!(help.contains(&format!("--{long}")), "{long}");
            }
        }
        for code in 0..=5 {
            assert!(help.contains(&format!("\n  {code}  ")), "{code}");
        }
    }
}
