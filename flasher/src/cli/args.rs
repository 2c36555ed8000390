//! The command line.

use std::path::{Path, PathBuf};

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, ValueEnum};

use super::help::HELP;
use crate::options::{BadBlocks, Check, ClearBits, Extent, Head, Mode, Options, Rest};
use crate::source::{Decompress, Format};

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

#[derive(Debug, Clone, Copy, ValueEnum)]
enum DecompressArg {
    Auto,
    Gzip,
    Xz,
    Zstd,
    None,
}

/// What is to be written, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Work<'a> {
    /// A file onto a partition.
    File(&'a Path, &'a str),
    /// Standard input onto a partition.
    Stdin(&'a str),
    /// The plan in a file.
    Plan(&'a Path),
}

/// The parsed command line.
#[derive(Debug, Parser)]
#[command(name = "flashcp", version, override_help = HELP)]
pub(super) struct Args {
    /// The image's file.
    #[arg(value_name = "IMAGE", required_unless_present = "plan")]
    image: Option<PathBuf>,
    /// The partition.
    #[arg(value_name = "DEVICE", required_unless_present = "plan")]
    device: Option<String>,
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
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    size: Option<u64>,
    #[arg(long, value_enum, value_name = "HOW", num_args = 0..=1, require_equals = true, default_missing_value = "auto")]
    decompress: Option<DecompressArg>,
    #[arg(long, value_name = "FILE", conflicts_with_all = ["image", "device", "sha256", "size", "decompress"])]
    plan: Option<PathBuf>,
    #[arg(long)]
    pub(super) json: bool,
    #[arg(long)]
    any_content: bool,
    #[arg(long)]
    raw_ubi: bool,
    #[arg(long)]
    allow_in_use: bool,
}

impl Args {
    /// What parsing alone does not find.
    pub(super) fn checked(self) -> Result<Self, clap::Error> {
        let unproven = self.size.is_none() && self.sha256.is_none();
        let plain = matches!(self.decompress, None | Some(DecompressArg::None));
        if matches!(self.work(), Work::Stdin(_)) && unproven && plain {
            return Err(usage(
                "where does standard input end? A connection that drops looks like the image's end. Say --size or \
                 --sha256, or send it compressed with --decompress",
            ));
        }
        if matches!(self.work(), Work::Stdin(_)) && matches!(self.head, HeadArg::Keep) {
            return Err(usage("--head=keep would leave a valid head on what a broken connection has left"));
        }
        if self.wr_last.is_some() && matches!(self.head, HeadArg::Keep) {
            return Err(usage("--wr-last says what is completed last, --head=keep that nothing is"));
        }
        Ok(self)
    }

    /// What is to be written, and where.
    pub(super) fn work(&self) -> Work<'_> {
        match (&self.plan, &self.image, &self.device) {
            (None, Some(image), Some(device)) if image.as_os_str() == "-" => Work::Stdin(device),
            (None, Some(image), Some(device)) => Work::File(image, device),
            (plan, ..) => Work::Plan(plan.as_deref().unwrap_or(Path::new(""))),
        }
    }

    /// How the image is compressed, as far as the command line says.
    pub(super) fn decompress(&self) -> Decompress {
        match self.decompress {
            None => Decompress::ByName,
            Some(DecompressArg::Auto) => Decompress::ByMagic,
            Some(DecompressArg::None) => Decompress::Never,
            Some(DecompressArg::Gzip) => Decompress::As(Format::Gzip),
            Some(DecompressArg::Xz) => Decompress::As(Format::Xz),
            Some(DecompressArg::Zstd) => Decompress::As(Format::Zstd),
        }
    }

    /// The rest, as the library takes it.
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
            raw_ubi: check(self.raw_ubi),
            clear_bits: if self.clear_bits { ClearBits::Allow } else { ClearBits::WhereSafe },
            bad_blocks: match self.bad_blocks {
                BadBlocksArg::Refuse => BadBlocks::Refuse,
                BadBlocksArg::Skip => BadBlocks::Skip,
                BadBlocksArg::Mark => BadBlocks::Mark,
            },
            sha256: self.sha256.clone(),
            size: self.size,
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
        // mtd-utils refuses -p with either of these.
        assert_eq!(parse("flashcp -p -A fw.bin mtd5").unwrap().rest, Rest::Erase);
        for line in ["-l 4096", "-l4096", "--wr-last=0x1000", "--wr-last 4k", "-p -l 4K", "-A -p -l 4k"] {
            assert_eq!(
                parse(&format!("flashcp {line} fw.bin mtd5")).unwrap().head_size,
                Some(4096),
                "{line}"
            );
        }
    }

    #[test]
    fn every_option_reaches_the_library() {
        let all = "flashcp --head=keep --full --clear-bits --bad-blocks=skip --any-content --raw-ubi --allow-in-use --size=1M --sha256=";
        let options = parse(&format!("{all}{} fw.bin mtd5", "AB".repeat(32))).unwrap();
        assert_eq!(
            options,
            Options {
                head: Head::Keep,
                extent: Extent::Full,
                clear_bits: ClearBits::Allow,
                bad_blocks: BadBlocks::Skip,
                content: Check::Allow,
                raw_ubi: Check::Allow,
                in_use: Check::Allow,
                sha256: Some("ab".repeat(32)),
                size: Some(1 << 20),
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
            "flashcp --head=keep --size=4k - mtd5",
        ] {
            assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
        }
        for line in ["flashcp -h", "flashcp --help", "flashcp -V", "flashcp --version"] {
            assert_eq!(parse(line).unwrap_err().exit_code(), 0, "{line}");
        }
    }

    fn args(line: &str) -> Args {
        Args::try_parse_from(line.split(' ')).and_then(Args::checked).unwrap()
    }

    #[test]
    fn standard_input_needs_an_end_that_can_be_proven() {
        for line in ["flashcp - mtd5", "flashcp --decompress=none - mtd5", "flashcp --dry-run - mtd5"] {
            let error = parse(line).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().starts_with("error: where does standard input end?"), "{error}");
        }
        let digest = format!("--sha256={}", "0".repeat(64));
        for proof in ["--size=4k", &digest, "--decompress", "--decompress=xz"] {
            let line = format!("flashcp {proof} - mtd5");
            assert_eq!(args(&line).work(), Work::Stdin("mtd5"), "{line}");
        }
    }

    #[test]
    fn decompression_is_asked_for_by_name_or_by_option() {
        assert_eq!(args("flashcp fw.gz mtd5").decompress(), Decompress::ByName);
        assert_eq!(args("flashcp --decompress fw.gz mtd5").decompress(), Decompress::ByMagic);
        assert_eq!(args("flashcp --decompress=none fw.gz mtd5").decompress(), Decompress::Never);
        for (name, format) in [("gzip", Format::Gzip), ("xz", Format::Xz), ("zstd", Format::Zstd)] {
            let line = format!("flashcp --decompress={name} fw mtd5");
            assert_eq!(args(&line).decompress(), Decompress::As(format));
        }
    }

    #[test]
    fn a_plan_stands_alone() {
        assert_eq!(args("flashcp --plan=up.toml").work(), Work::Plan(Path::new("up.toml")));
        assert_eq!(args("flashcp --json --plan up.toml -v").work(), Work::Plan(Path::new("up.toml")));
        assert_eq!(args("flashcp fw.bin mtd5").work(), Work::File(Path::new("fw.bin"), "mtd5"));
        for more in ["fw.bin mtd5", "--size=4k", "--decompress"] {
            assert_eq!(
                parse(&format!("flashcp --plan=up.toml {more}")).unwrap_err().exit_code(),
                2,
                "{more}"
            );
        }
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
