//! `bangerd --doctor` (R-OPS-1): how this machine stands, as JSON on stdout. Reads only: it makes no directory, takes
//! no lock, starts no VM, and does not mind a daemon that runs. (Whether files share blocks can only be tried: with two that
//! have no name.) Each row asks the function that the work itself asks.

mod drivers;
mod state;
mod supplies;

use crate::core::Core;
use crate::ledger::StoreLedger;
use crate::recovery::{self, Opened};
use crate::services::{Peers, wire_services};
use crate::{image_service::Images, ops::Registry, place};
use banger_config::Config;
use banger_host::crash::CrashPoints;
use banger_model::Instance;
use banger_store::{Error as StoreError, Store};
use banger_wire::api::{ApiError, Code, DoctorRow, Paths};
use std::{process::ExitCode, sync::Arc};

/// What the rows are read from.
struct Patient {
    paths: Paths,
    config: Config,
    core: Arc<Core>,
    images: Arc<dyn Images>,
    peers: Peers,
    /// Why the database is of no use, or that there is none yet.
    database: Database,
}

enum Database {
    /// Opened for reading.
    Open,
    /// Nothing was made here yet.
    Fresh,
    /// To be brought up to date by the next daemon.
    Older,
    /// Of no use, for this reason.
    Unusable(String),
}

/// Prints the rows; 0 however they stand, 1 if there are none.
pub fn print() -> ExitCode {
    let paths = match Paths::of_process(rustix::process::geteuid().as_raw()) {
        Ok(paths) => paths,
        Err(error) => return refused(&error.to_string()),
    };
    let rows = match examine(paths) {
        Ok(rows) => rows,
        Err(error) => return refused(&error.to_string()),
    };
    match serde_json::to_string(&rows) {
        Ok(text) => println!("{text}"),
        Err(error) => return refused(&error.to_string()),
    }
    ExitCode::SUCCESS
}

fn refused(why: &str) -> ExitCode {
    eprintln!("error: bangerd cannot look at this machine: {why}");
    ExitCode::FAILURE
}

fn examine(paths: Paths) -> Result<Vec<DoctorRow>, ApiError> {
    let mut rows = state::machine();
    let (row, config) = configuration(&paths);
    rows.push(row);
    let patient = patient(paths, config)?;
    rows.extend(state::places(&patient));
    rows.extend(state::database(&patient));
    rows.extend(drivers::vmm(&patient));
    rows.extend(drivers::choices(&patient));
    rows.extend(supplies::images(&patient));
    rows.extend(supplies::defaults(&patient));
    rows.extend(state::left_over(&patient));
    Ok(rows)
}

/// What the configuration says, or the defaults where it cannot be used.
fn configuration(paths: &Paths) -> (DoctorRow, Config) {
    let (area, what, path) = ("machine", "configuration", paths.config.display());
    match Config::load(&paths.config) {
        Ok(config) if paths.config.exists() => {
            (DoctorRow::pass(area, what, path.to_string()), config)
        }
        Ok(config) => {
            let seen = format!("none at {path}: every setting has its default");
            (DoctorRow::pass(area, what, seen), config)
        }
        Err(error) => {
            let told = ApiError::of(Code::Precondition, &error).to_string();
            let row = DoctorRow::fail(area, what, told, error.hint());
            (row, Config::default())
        }
    }
}

fn patient(paths: Paths, config: Config) -> Result<Patient, ApiError> {
    let host = Arc::new(place::host(&paths, CrashPoints::none()));
    let path = recovery::database(&paths.state_dir);
    let opened = Store::open_read_only(&path);
    let database = match &opened {
        Ok(_) => Database::Open,
        Err(StoreError::Missing { .. }) => match recovery::has_vms(&host, &paths.state_dir) {
            Ok(false) => Database::Fresh,
            Ok(true) => Database::Unusable("it is missing, and there are VMs".to_owned()),
            Err(error) => Database::Unusable(error.to_string()),
        },
        Err(StoreError::Older { .. }) => Database::Older,
        Err(error) => Database::Unusable(ApiError::of(Code::Unavailable, error).to_string()),
    };
    let said = opened.as_ref().ok().map(Store::instance);
    // One that cannot be read is told by the row of its directory.
    let written = recovery::written_instance(&host, &paths.state_dir).unwrap_or_default();
    let instance = said.or(written).unwrap_or(Instance::from_bytes([0; 4]));
    let why = opened.map_err(|error| error.to_string());
    let opened = Opened {
        instance,
        ledger: StoreLedger::new(why, CrashPoints::none()),
    };
    let core = place::core(host, &paths, &config, opened)
        .map_err(|e| ApiError::of(Code::OperationFailed, &e))?;
    let (core, peers) = (Arc::new(core), Peers::default());
    wire_services(&peers, &core, &Arc::new(Registry::default()), &config);
    Ok(Patient {
        paths,
        config,
        images: peers.images()?,
        core,
        peers,
        database,
    })
}

/// A row for a fact that is told as an error.
fn needed(area: &str, what: &str, seen: String, fact: Result<(), ApiError>) -> DoctorRow {
    match fact {
        Ok(()) => DoctorRow::pass(area, what, seen),
        Err(error) => {
            let hint = error
                .hint
                .clone()
                .unwrap_or_else(|| "banger daemon logs".to_owned());
            DoctorRow::fail(area, what, error.to_string(), hint)
        }
    }
}
