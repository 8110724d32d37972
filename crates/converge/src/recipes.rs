//! What only the drivers know: how a disk, a process, a table is made for a VM.

use crate::RecipeError;
use banger_host::{DiskRecipe, DmTable, ProcessIdentity, SpawnSpec};
use banger_model::{Role, Vm};
use std::path::PathBuf;

/// Answers of the drivers. Pure look-ups and renderings: nothing is made or changed by asking.
pub trait Recipes {
    /// How the content of a data disk comes to be.
    fn disk(&self, vm: &Vm, role: Role) -> Result<DiskRecipe, RecipeError>;
    /// The image file under the root device.
    fn base_image(&self, vm: &Vm) -> Result<PathBuf, RecipeError>;
    /// The root device's table over two loop devices.
    fn dm_table(&self, vm: &Vm, base_loop: u32, cow_loop: u32) -> Result<DmTable, RecipeError>;
    /// How a process is started.
    fn launch(&self, vm: &Vm, role: Role) -> Result<Launch, RecipeError>;
    /// What proves that a process is this one. The hint is filled in by the caller.
    fn identity(&self, vm: &Vm, role: Role) -> ProcessIdentity;
}

/// How a process is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    /// Files it reads, written anew before every start: nothing durable depends on them.
    pub files: Vec<BootFile>,
    /// The process.
    pub spec: SpawnSpec,
}

/// A file a process reads when it starts, inside the VM's directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootFile {
    /// Where.
    pub path: PathBuf,
    /// Whole content.
    pub bytes: Vec<u8>,
}
