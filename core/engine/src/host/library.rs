//! Opening one library: hash, copy, architecture, symbol, version; and what one says of itself before it is opened.

use std::collections::BTreeSet;
use std::os::raw::c_int;
use std::path::{Path, PathBuf};

use libloading::os::unix;
use object::read::elf::ElfFile64;
use object::{Object, ObjectSection, ObjectSymbol, ReadCache, ReadRef};
use pipeline_sdk::abi::{ROOT_SYMBOL, TYPES_SYMBOL};
use pipeline_sdk::abi::import::Library;
use pipeline_sdk::abi::types::Root;
use pipeline_sdk::{Error, Result};
use sha2::{Digest, Sha256};

use super::{LoadOptions, stale};

/// Of `dlopen`: the library stays for the life of the process. Linux's value; libloading does not name it.
const RTLD_NODELETE: c_int = 0x1000;
/// Offset of the machine word in an ELF header, and its values.
const ELF_MACHINE_AT: usize = 18;
const ELF_CLASS_AT: usize = 4;
const ELF_CLASS_64: u8 = 2;
const ELF_MACHINES: [(&str, u16); 4] = [("x86_64", 62), ("aarch64", 183), ("riscv64", 243), ("x86", 3)];

pub(super) struct Opened {
    pub library: Library,
    pub sha256: String,
    /// The file that was opened: the copy, where there is one.
    pub file: PathBuf,
    /// As of [`types`].
    pub types: Option<BTreeSet<String>>,
}

/// The types that a library says it has, read from the file without opening it; `None` where it does not say, or cannot be read.
pub(super) fn types(path: &Path) -> Option<BTreeSet<String>> {
    types_in(&ReadCache::new(std::fs::File::open(path).ok()?))
}

fn types_in<'data>(file: impl ReadRef<'data>) -> Option<BTreeSet<String>> {
    let file: ElfFile64<'data, object::Endianness, _> = ElfFile64::parse(file).ok()?;
    let symbol = file.dynamic_symbols().find(|symbol| symbol.name() == Ok(TYPES_SYMBOL))?;
    let section = file.section_by_index(symbol.section_index()?).ok()?;
    let bytes = section.data_range(symbol.address(), symbol.size()).ok()??;
    let text = std::str::from_utf8(bytes).ok()?;
    // A constant of C ends with a NUL.
    Some(text.trim_end_matches('\0').lines().map(ToOwned::to_owned).collect())
}

/// Opens a library, from a copy under its hash where a folder for copies is given.
///
/// # Errors
/// Not readable, not an ELF library of this machine, older than its sources, not a plugin, another version of the boundary.
pub(super) fn open(path: &Path, options: &LoadOptions) -> Result<Opened> {
    let bytes = std::fs::read(path)
        .map_err(|error| {
            let unreadable = Error::fatal(format!("cannot read the library: {error}")).code("plugin.unreadable");
            unreadable.hint("the file must exist and be readable; `cargo build` makes it anew")
        })?;
    check_machine(&bytes)?;
    check_whole(&bytes)?;
    if !options.accept_stale {
        stale::check(path)?;
    }
    let sha256: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    let opened = match options.copies.as_deref() {
        Some(folder) => copy(&bytes, &sha256, path, folder)?,
        // An absolute path: dlopen would look a bare name up in the system's folders.
        None => std::path::absolute(path).unwrap_or_else(|_| path.to_owned()),
    };
    Ok(Opened { library: root_of(&opened)?, sha256, file: opened, types: types_in(bytes.as_slice()) })
}

fn check_machine(bytes: &[u8]) -> Result<()> {
    let not = |message: String| {
        Err(Error::fatal(message).code("plugin.machine").hint("build the plugin on this machine with `cargo build`"))
    };
    if bytes.len() < ELF_MACHINE_AT + 2 || !bytes.starts_with(b"\x7fELF") {
        return not(format!("the file of {} bytes is not a shared library", bytes.len()));
    }
    let machine = u16::from_le_bytes([bytes[ELF_MACHINE_AT], bytes[ELF_MACHINE_AT + 1]]);
    let here = std::env::consts::ARCH;
    if ELF_MACHINES.iter().any(|(name, number)| *name == here && *number != machine) {
        let theirs = ELF_MACHINES.iter().find(|(_, number)| *number == machine).map_or("another machine", |it| it.0);
        return not(format!("the library is built for {theirs}, this machine is {here}"));
    }
    Ok(())
}

/// Refuses a library that was cut off: opening one makes the system touch memory behind the file's end, which ends the process.
fn check_whole(bytes: &[u8]) -> Result<()> {
    let number = |at: usize, width: usize| -> u64 {
        let bytes = bytes.get(at..at + width).unwrap_or_default();
        bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
    };
    // The program headers of a 64-bit ELF file: where they are, how long each is, how many; in each, offset and length in the file.
    let (first, width, count) = (number(32, 8) as usize, number(54, 2) as usize, number(56, 2) as usize);
    let ends = (0..count).map(|index| first.saturating_add(index * width)).map(|at| {
        let segment = number(at.saturating_add(8), 8).saturating_add(number(at.saturating_add(32), 8));
        segment.max(at.saturating_add(width) as u64)
    });
    let needed = ends.max().filter(|_| bytes.get(ELF_CLASS_AT) == Some(&ELF_CLASS_64)).unwrap_or_default();
    if needed <= bytes.len() as u64 {
        return Ok(());
    }
    Err(Error::fatal(format!("the library is cut off: it has {} bytes of {needed}", bytes.len()))
        .code("plugin.cut")
        .hint("build it anew, or copy it again"))
}

/// A copy under the library's hash; an equal one that is there already is used, which is looked at byte by byte: a copy is not
/// synced, and one that a loss of power left half-written is made anew. Written aside and renamed, for another process may open it.
fn copy(bytes: &[u8], sha256: &str, path: &Path, folder: &Path) -> Result<PathBuf> {
    let failed = |error: std::io::Error| {
        Error::fatal(format!("cannot copy the library to {}: {error}", folder.display()))
            .code("plugin.copy")
            .hint("the folder must be writable and the disk must have room")
    };
    let folder = std::path::absolute(folder).map_err(failed)?;
    crate::folder::make_private(&folder).map_err(failed)?;
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    let target = folder.join(format!("{name}-{}{}", &sha256[..16], std::env::consts::DLL_SUFFIX));
    let is_as_long = std::fs::metadata(&target).is_ok_and(|it| it.len() == bytes.len() as u64);
    if is_as_long && std::fs::read(&target).is_ok_and(|copy| copy == bytes) {
        return Ok(target);
    }
    let aside = folder.join(format!("{name}-{}.{}", &sha256[..16], std::process::id()));
    std::fs::write(&aside, bytes).map_err(failed)?;
    std::fs::rename(&aside, &target).map_err(failed)?;
    Ok(target)
}

/// Opens a file that was checked before.
pub(super) fn root_of(path: &Path) -> Result<Library> {
    // SAFETY: opening a library runs its initialisers: a plugin is code that the user chose to run in this process.
    let library = unsafe { unix::Library::open(Some(path), unix::RTLD_NOW | unix::RTLD_LOCAL | RTLD_NODELETE) };
    let library = library.map_err(|error| {
        Error::fatal(format!("the system cannot open the library: {error}"))
            .code("plugin.open")
            .hint("a library that it needs may be missing (`ldd` shows which), or it is damaged: build it anew")
    })?;
    // SAFETY: the symbol is declared with this type by the boundary's header.
    let root = unsafe { library.get::<unsafe extern "C" fn() -> *const Root>(ROOT_SYMBOL) }.map_err(|_| {
        Error::fatal(format!("the library is no plugin: it does not export `{ROOT_SYMBOL}`"))
            .code("plugin.symbol")
            .hint("a plugin's library crate calls `pipeline_sdk::plugin!`")
    })?;
    // SAFETY: the function takes nothing and returns the plugin's static table.
    let root = unsafe { root() };
    // Never closed: tables and code live for ever (the mode says so to the system as well).
    std::mem::forget(library);
    // SAFETY: the table is static in a library that is never unloaded; its author keeps to the boundary's rules.
    unsafe { Library::new(root) }
}
