//! Loading kernel modules from the initramfs.

use std::fs::File;

use rustix::io::Errno;
use rustix::system::finit_module;

/// `MODULE_INIT_COMPRESSED_FILE` of finit_module(2): the kernel unpacks the module.
const COMPRESSED: i32 = 4;

/// Loads modules in this order and removes their files, which are memory in an initramfs. Gives a sentence for
/// each that failed; what depends on it will fail with its own reason.
pub fn load(paths: &[String]) -> Vec<String> {
    paths
        .iter()
        .filter_map(|path| load_one(path).err())
        .collect()
}

fn load_one(path: &str) -> Result<(), String> {
    let file =
        File::open(path).map_err(|error| format!("module {path} cannot be read: {error}"))?;
    let flags = if path.ends_with(".ko") { 0 } else { COMPRESSED };
    match finit_module(&file, c"", flags) {
        Ok(()) | Err(Errno::EXIST) => {
            let _ = std::fs::remove_file(path);
            Ok(())
        }
        Err(error) => Err(format!("module {path} cannot be loaded: {error}")),
    }
}
