//! Small ELF files for tests, made by code: a header, program headers, a dynamic segment, strings.

use super::elf::Kind;

/// `EM_AARCH64`.
pub(crate) const AARCH64: u16 = 183;
/// `EM_MIPS`.
pub(crate) const MIPS: u16 = 8;

/// Builds an ELF file that asks for what it is told.
pub(crate) struct ElfBuilder {
    kind: Kind,
    interpreter: Option<String>,
    dynamic: Vec<(u64, String)>,
}

/// A library or program for aarch64 that needs `needed`.
pub(crate) fn aarch64(interpreter: Option<&str>, needed: &[&str]) -> ElfBuilder {
    let builder =
        ElfBuilder::new(Kind { is_64: true, is_big_endian: false, machine: AARCH64 }).needed(needed);
    match interpreter {
        Some(name) => builder.interpreter(name),
        None => builder,
    }
}

impl ElfBuilder {
    pub(crate) fn new(kind: Kind) -> Self {
        Self { kind, interpreter: None, dynamic: Vec::new() }
    }

    pub(crate) fn interpreter(mut self, name: &str) -> Self {
        self.interpreter = Some(name.to_owned());
        self
    }

    pub(crate) fn needed(mut self, names: &[&str]) -> Self {
        self.dynamic.extend(names.iter().map(|n| (1, (*n).to_owned())));
        self
    }

    /// Names in its table of strings. No symbol table says so: nobody here reads one.
    pub(crate) fn exports(mut self, names: &[&str]) -> Self {
        const DT_SONAME: u64 = 14;
        self.dynamic.extend(names.iter().map(|n| (DT_SONAME, (*n).to_owned())));
        self
    }

    pub(crate) fn rpath(mut self, path: &str) -> Self {
        self.dynamic.push((15, path.to_owned()));
        self
    }

    pub(crate) fn runpath(mut self, path: &str) -> Self {
        self.dynamic.push((29, path.to_owned()));
        self
    }

    /// The file: loaded at 0x10000, so that an address is never an offset by chance.
    pub(crate) fn build(&self) -> Vec<u8> {
        const BASE: u64 = 0x10000;
        let word = if self.kind.is_64 { 8 } else { 4 };
        let (header, segment) = if self.kind.is_64 { (64, 56) } else { (52, 32) };
        let interpreter =
            self.interpreter.as_ref().map(|n| [n.as_bytes(), b"\0"].concat()).unwrap_or_default();
        let mut strings = vec![0];
        let mut entries = Vec::new();
        for (tag, text) in &self.dynamic {
            entries.push((*tag, strings.len() as u64));
            strings.extend(text.as_bytes());
            strings.push(0);
        }
        let segments = 2 + u64::from(self.interpreter.is_some());
        let interpreter_at = header + segments * segment;
        let strings_at = interpreter_at + interpreter.len() as u64;
        let dynamic_at = (strings_at + strings.len() as u64).next_multiple_of(8);
        entries.extend([(5, BASE + strings_at), (10, strings.len() as u64), (0, 0)]);
        let dynamic_size = entries.len() as u64 * word * 2;
        let end = dynamic_at + dynamic_size;

        let mut out = b"\x7fELF".to_vec();
        out.push(if self.kind.is_64 { 2 } else { 1 });
        out.push(if self.kind.is_big_endian { 2 } else { 1 });
        out.extend([1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        self.put(&mut out, 2, 3); // ET_DYN
        self.put(&mut out, 2, self.kind.machine.into());
        self.put(&mut out, 4, 1);
        self.put(&mut out, word, BASE); // entry
        self.put(&mut out, word, header); // phoff
        self.put(&mut out, word, 0); // shoff
        self.put(&mut out, 4, 0); // flags
        for (size, value) in [(2, header), (2, segment), (2, segments), (2, 0), (2, 0), (2, 0)] {
            self.put(&mut out, size, value);
        }
        if self.interpreter.is_some() {
            self.segment(&mut out, 3, interpreter_at, BASE, interpreter.len() as u64);
        }
        self.segment(&mut out, 1, 0, BASE, end);
        self.segment(&mut out, 2, dynamic_at, BASE, dynamic_size);
        out.extend(interpreter);
        out.extend(strings);
        out.resize(usize::try_from(dynamic_at).unwrap(), 0);
        for (tag, value) in entries {
            self.put(&mut out, word, tag);
            self.put(&mut out, word, value);
        }
        out
    }

    fn segment(&self, out: &mut Vec<u8>, kind: u64, offset: u64, base: u64, size: u64) {
        let at = base + offset;
        if self.kind.is_64 {
            for (bytes, value) in
                [(4, kind), (4, 4), (8, offset), (8, at), (8, at), (8, size), (8, size), (8, 8)]
            {
                self.put(out, bytes, value);
            }
        } else {
            for value in [kind, offset, at, at, size, size, 4, 4] {
                self.put(out, 4, value);
            }
        }
    }

    fn put(&self, out: &mut Vec<u8>, size: u64, value: u64) {
        let size = usize::try_from(size).unwrap();
        if self.kind.is_big_endian {
            out.extend(&value.to_be_bytes()[8 - size..]);
        } else {
            out.extend(&value.to_le_bytes()[..size]);
        }
    }
}
