//! Finding and loading libtaos, and the table of its functions.

use std::ffi::{c_char, c_int, c_void};
use std::path::{Path, PathBuf};

use libloading::Library;

use crate::client::{ClientError, Result};

/// Looked up in the system's folders.
const FILE_NAMES: [&str; 2] = ["libtaos.so", "libtaos.so.1"];
/// Where installers put it.
const FOLDERS: [&str; 4] = ["/usr/lib", "/usr/local/lib", "/usr/local/taos/driver", "/usr/lib64"];
/// `TSDB_OPTION_CHARSET` and `TSDB_OPTION_CONFIGDIR` of `taos.h`.
const OPTION_CHARSET: c_int = 1;
const OPTION_CONFIG_FOLDER: c_int = 3;

/// `TAOS_FIELD` of `taos.h`.
#[repr(C)]
pub struct RawField {
    pub name: [u8; 65],
    pub type_code: i8,
    pub bytes: i32,
}

/// `tmq_raw_data` of `taos.h`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct RawData {
    pub data: *mut c_void,
    pub length: u32,
    pub kind: u16,
}

/// `tmq_topic_assignment` of `taos.h`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct RawAssignment {
    pub vgroup: i32,
    pub current: i64,
    pub begin: i64,
    pub end: i64,
}

macro_rules! functions {
    ($($name:ident: fn($($argument:ty),*) $(-> $result:ty)?;)*) => {
        /// Functions of libtaos 3.3 by their names there.
        #[derive(Clone, Copy)]
        pub struct Functions {
            $(pub $name: unsafe extern "C" fn($($argument),*) $(-> $result)?,)*
        }

        impl Functions {
            fn load(library: &Library, path: &Path) -> Result<Self> {
                Ok(Self {
                    $($name: {
                        // SAFETY: the type is the one that `taos.h` declares for this name.
                        let symbol = unsafe { library.get(concat!(stringify!($name), "\0").as_bytes()) };
                        *symbol.map_err(|_| lacks(path, stringify!($name)))?
                    },)*
                })
            }
        }
    };
}

type Taos = *mut c_void;
type Res = *mut c_void;
type Tmq = *mut c_void;
type Conf = *mut c_void;
type List = *mut c_void;
type Text = *const c_char;

functions! {
    taos_options: fn(c_int, *const c_void) -> c_int;
    taos_connect: fn(Text, Text, Text, Text, u16) -> Taos;
    taos_close: fn(Taos);
    taos_query: fn(Taos, Text) -> Res;
    taos_errno: fn(Res) -> c_int;
    taos_errstr: fn(Res) -> Text;
    taos_free_result: fn(Res);
    taos_is_update_query: fn(Res) -> bool;
    taos_affected_rows64: fn(Res) -> i64;
    taos_result_precision: fn(Res) -> c_int;
    taos_num_fields: fn(Res) -> c_int;
    taos_fetch_fields: fn(Res) -> *const RawField;
    taos_fetch_raw_block: fn(Res, *mut c_int, *mut *mut c_void) -> c_int;
    taos_write_raw_block_with_fields: fn(Taos, c_int, *mut u8, Text, *const RawField, c_int) -> c_int;
    tmq_write_raw: fn(Taos, RawData) -> i32;
    tmq_err2str: fn(i32) -> Text;
    tmq_conf_new: fn() -> Conf;
    tmq_conf_set: fn(Conf, Text, Text) -> c_int;
    tmq_conf_destroy: fn(Conf);
    tmq_list_new: fn() -> List;
    tmq_list_append: fn(List, Text) -> i32;
    tmq_list_destroy: fn(List);
    tmq_consumer_new: fn(Conf, *mut c_char, i32) -> Tmq;
    tmq_consumer_close: fn(Tmq) -> i32;
    tmq_subscribe: fn(Tmq, List) -> i32;
    tmq_unsubscribe: fn(Tmq) -> i32;
    tmq_consumer_poll: fn(Tmq, i64) -> Res;
    tmq_get_res_type: fn(Res) -> c_int;
    tmq_get_vgroup_id: fn(Res) -> i32;
    tmq_get_vgroup_offset: fn(Res) -> i64;
    tmq_get_raw: fn(Res, *mut RawData) -> i32;
    tmq_free_raw: fn(RawData);
    tmq_get_json_meta: fn(Res) -> *mut c_char;
    tmq_free_json_meta: fn(*mut c_char);
    tmq_get_topic_assignment: fn(Tmq, Text, *mut *mut RawAssignment, *mut i32) -> i32;
    tmq_free_assignment: fn(*mut RawAssignment);
    tmq_position: fn(Tmq, Text, i32) -> i64;
    tmq_committed: fn(Tmq, Text, i32) -> i64;
    tmq_commit_offset_sync: fn(Tmq, Text, i32, i64) -> i32;
    tmq_offset_seek: fn(Tmq, Text, i32, i64) -> i32;
}

/// Loads libtaos from `path`, or from where it is usually found, and tells it to use the settings in `config_folder`.
///
/// Once loaded it stays for the life of the process: it runs threads of its own.
///
/// # Errors
/// [`ClientError::Unexpected`] with every path that was tried and why it was not it.
pub fn load(path: Option<&str>, config_folder: Option<&str>) -> Result<Functions> {
    let mut tried = Vec::new();
    for path in candidates(path) {
        // SAFETY: opening a library runs its initialisers: it is the one that the user named or installed.
        match unsafe { Library::new(&path) } {
            Ok(library) => {
                let functions = Functions::load(&library, &path)?;
                std::mem::forget(library);
                set_option(&functions, OPTION_CHARSET, Some("UTF-8"));
                set_option(&functions, OPTION_CONFIG_FOLDER, config_folder);
                return Ok(functions);
            }
            Err(error) => tried.push(format!("{}: {error}", path.display())),
        }
    }
    let why = format!(
        "libtaos is not found, which a native address needs. Install the TDengine client, name the library \
         (taos://host:6030?libraryPath=/path/libtaos.so), or use the WebSocket address (ws://host:6041). Tried: {}",
        tried.join("; ")
    );
    Err(ClientError::unexpected("load libtaos", why))
}

/// With a path given, that one alone. A bare name is looked up by the system, `LD_LIBRARY_PATH` included.
fn candidates(path: Option<&str>) -> Vec<PathBuf> {
    if let Some(path) = path {
        let path = PathBuf::from(path);
        return if path.is_dir() { FILE_NAMES.iter().map(|name| path.join(name)).collect() } else { vec![path] };
    }
    let names = FILE_NAMES.iter().map(PathBuf::from);
    names.chain(FOLDERS.iter().flat_map(|folder| FILE_NAMES.map(|name| Path::new(folder).join(name)))).collect()
}

fn set_option(functions: &Functions, option: c_int, value: Option<&str>) {
    let Some(value) = value.and_then(|value| std::ffi::CString::new(value).ok()) else { return };
    // SAFETY: both options take a text, which libtaos copies. It says no once it is at work: the setting stands then.
    unsafe { (functions.taos_options)(option, value.as_ptr().cast()) };
}

fn lacks(path: &Path, name: &str) -> ClientError {
    let why = format!("{} has no function {name}: libtaos 3.3.0 or newer is needed", path.display());
    ClientError::unexpected("load libtaos", why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_library_is_an_error_with_every_path_tried() {
        let folder = std::env::temp_dir();
        let folder = folder.to_str().unwrap();
        for (path, expected) in [
            ("/nowhere/libtaos.so", vec!["/nowhere/libtaos.so:".to_owned()]),
            (folder, FILE_NAMES.map(|name| format!("{}:", Path::new(folder).join(name).display())).to_vec()),
        ] {
            let error = load(Some(path), None).err().unwrap().to_string();
            for part in expected.iter().map(String::as_str).chain(["libraryPath=", "ws://"]) {
                assert!(error.contains(part), "{part} is not in: {error}");
            }
        }
        let usual = candidates(None);
        assert!(usual.contains(&PathBuf::from("libtaos.so")), "the system's search comes first");
        assert!(usual.contains(&PathBuf::from("/usr/local/taos/driver/libtaos.so")));
    }

    #[test]
    fn another_library_is_told_by_what_it_lacks() {
        // A library that is on every machine that runs this test.
        let Some(path) = ["libc.so.6", "libSystem.B.dylib"].into_iter().find(|path| {
            // SAFETY: the C library is loaded already.
            unsafe { Library::new(*path) }.is_ok()
        }) else {
            panic!("no C library")
        };
        let error = load(Some(path), None).err().unwrap().to_string();
        assert!(error.contains("has no function taos_options"), "{error}");
    }
}
