//! Opening, checking and making a database. Nothing is written to a file before it is known to be
//! ours and not newer.

use crate::{Error, Result};
use banger_model::Instance;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension};
use rusqlite_migration::{M, Migrations};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// One entry per format version, each applied in one transaction. Never edited once shipped.
const MIGRATIONS: &[M<'static>] = &[M::up(include_str!("schema.sql")).foreign_key_check()];

/// The format this program writes, kept in `PRAGMA user_version`.
pub const SCHEMA_VERSION: u32 = MIGRATIONS.len() as u32;

/// `PRAGMA application_id` of our files: "bang".
const APPLICATION_ID: u32 = 0x6261_6e67;
/// Bytes of the smallest page (sqlite.org/fileformat2.html, section 1.3.2).
const SMALLEST: u64 = 512;
/// How long a connection waits for another one's transaction.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// Opens an existing database for writing, and migrates it.
pub(crate) fn writable(path: &Path) -> Result<Connection> {
    if !path.exists() {
        return Err(Error::Missing {
            path: path.to_owned(),
        });
    }
    let mut connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let found = version(&connection, path)?;
    if found == 0 {
        return Err(Error::Missing {
            path: path.to_owned(),
        });
    }
    // First: what is damaged is not changed.
    quick_check(&connection, path)?;
    if found != SCHEMA_VERSION {
        migrate(&mut connection, path)?;
    }
    durable(&connection, path)?;
    Ok(connection)
}

/// Makes a database, or finishes one whose making was interrupted: one without an instance.
pub(crate) fn create(path: &Path, instance: Instance) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
    let mut connection = connect(path, flags)?;
    if version(&connection, path)? > 0 && self::instance(&connection, path)?.is_some() {
        return Err(Error::Exists {
            path: path.to_owned(),
        });
    }
    durable(&connection, path)?;
    migrate(&mut connection, path)?;
    connection
        .execute(
            "INSERT INTO meta (key, value) VALUES ('instance', ?1)",
            [instance.to_string()],
        )
        .map_err(|source| classify(path, "write its instance", source))?;
    sync_parent(path)?;
    Ok(connection)
}

/// The instance, `None` in a database that was never finished.
pub(crate) fn instance(connection: &Connection, path: &Path) -> Result<Option<Instance>> {
    let text: Option<String> = connection
        .query_row("SELECT value FROM meta WHERE key = 'instance'", [], |row| {
            row.get(0)
        })
        .optional()
        .map_err(|source| classify(path, "read its instance", source))?;
    text.map(|text| text.parse())
        .transpose()
        .map_err(|source| Error::Damaged {
            path: path.to_owned(),
            source: Box::new(source),
        })
}

/// Opens a database for reading: never creates, never migrates, leaves no file behind.
pub(crate) fn read_only(path: &Path) -> Result<Connection> {
    if !path.exists() {
        return Err(Error::Missing {
            path: path.to_owned(),
        });
    }
    let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    match version(&connection, path)? {
        0 => Err(Error::Missing {
            path: path.to_owned(),
        }),
        SCHEMA_VERSION => Ok(connection),
        found => Err(Error::Older {
            path: path.to_owned(),
            found,
            known: SCHEMA_VERSION,
        }),
    }
}

fn connect(path: &Path, flags: OpenFlags) -> Result<Connection> {
    let flags = flags | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let failed = |source| classify(path, "open", source);
    // SQLite takes a stump for an empty database, and would write over it.
    if path
        .metadata()
        .is_ok_and(|meta| (1..SMALLEST).contains(&meta.len()))
    {
        let source = "it is shorter than a database's first page".into();
        return Err(Error::Damaged {
            path: path.to_owned(),
            source,
        });
    }
    let read_only = !flags.contains(OpenFlags::SQLITE_OPEN_READ_WRITE);
    // A reader of a cleanly closed WAL database would make its -wal and -shm files. With none there
    // nobody has it open, so it can be read as it lies.
    let connection = if read_only && !beside(path, "-wal").exists() {
        Connection::open_with_flags(immutable_uri(path), flags | OpenFlags::SQLITE_OPEN_URI)
    } else {
        Connection::open_with_flags(path, flags)
    }
    .map_err(failed)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(failed)?;
    connection
        .pragma_update(None, "foreign_keys", true)
        .map_err(failed)?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(connection)
}

/// `file:` URI of a path (sqlite.org/uri.html): `%`, `?` and `#` are its own.
fn immutable_uri(path: &Path) -> String {
    let escaped = path
        .to_string_lossy()
        .replace('%', "%25")
        .replace('?', "%3f")
        .replace('#', "%23");
    format!("file:{escaped}?immutable=1")
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// The format of a database, 0 for an empty one; refuses foreign and newer ones.
fn version(connection: &Connection, path: &Path) -> Result<u32> {
    let ask = |pragma| connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
    let failed = |source| classify(path, "read its format", source);
    let (version, application) = (
        ask("user_version").map_err(failed)?,
        ask("application_id").map_err(failed)?,
    );
    let objects: i64 = connection
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(failed)?;
    if version == 0 && application == 0 && objects == 0 {
        return Ok(0);
    }
    let damaged = |why: &str| Error::Damaged {
        path: path.to_owned(),
        source: why.into(),
    };
    if application != i64::from(APPLICATION_ID) {
        return Err(damaged("it is another program's database"));
    }
    match u32::try_from(version) {
        Ok(found) if found > SCHEMA_VERSION => Err(Error::Newer {
            path: path.to_owned(),
            found,
            known: SCHEMA_VERSION,
        }),
        Ok(found) if found > 0 => Ok(found),
        _ => Err(damaged("it has no format number")),
    }
}

fn migrate(connection: &mut Connection, path: &Path) -> Result<()> {
    Migrations::from_slice(MIGRATIONS)
        .to_latest(connection)
        .map_err(|error| match error {
            rusqlite_migration::Error::RusqliteError { err, .. } => classify(path, "migrate", err),
            other => Error::Damaged {
                path: path.to_owned(),
                source: other.into(),
            },
        })
}

/// WAL, so that readers never wait for the writer; FULL, so that an acknowledged commit survives
/// the machine's power.
fn durable(connection: &Connection, path: &Path) -> Result<()> {
    let failed = |source| classify(path, "set its journal mode", source);
    connection
        .pragma_update(None, "journal_mode", "wal")
        .map_err(failed)?;
    connection
        .pragma_update(None, "synchronous", "full")
        .map_err(failed)
}

fn quick_check(connection: &Connection, path: &Path) -> Result<()> {
    let answer: String = connection
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(|source| classify(path, "check itself", source))?;
    if answer == "ok" {
        return Ok(());
    }
    Err(Error::Damaged {
        path: path.to_owned(),
        source: answer.into(),
    })
}

fn sync_parent(path: &Path) -> Result<()> {
    let dir = path
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    std::fs::File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(|source| Error::Io {
            doing: "make durable",
            path: dir.to_owned(),
            source,
        })
}

/// Damage is a kind of its own: the way out is another one.
pub(crate) fn classify(path: &Path, doing: &'static str, source: rusqlite::Error) -> Error {
    match source.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Error::Damaged {
            path: path.to_owned(),
            source: source.into(),
        },
        _ => Error::Sqlite { doing, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn migrations_are_valid_and_one_per_version() {
        Migrations::from_slice(MIGRATIONS).validate().unwrap();
        assert_eq!(SCHEMA_VERSION, 1);
    }

    #[test]
    fn a_failing_migration_leaves_nothing() {
        let mut connection = Connection::open_in_memory().unwrap();
        let broken = [
            M::up("CREATE TABLE a (x) STRICT;"),
            M::up("CREATE TABLE b (x); CREATE TABLE a (x);"),
        ];
        assert!(
            Migrations::from_slice(&broken)
                .to_latest(&mut connection)
                .is_err()
        );
        let tables: i64 = connection
            .query_row(
                "SELECT count(*) FROM sqlite_schema WHERE name = 'b'",
                [],
                |r| r.get(0),
            )
            .unwrap();
        assert_eq!(tables, 0);
    }

    #[test]
    fn every_connection_waits_for_the_disk_and_for_others_and_keeps_keys() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.db");
        let instance = Instance::from_bytes([1; 4]);
        let made = create(&path, instance).unwrap();
        for connection in [made, writable(&path).unwrap(), read_only(&path).unwrap()] {
            let ask =
                |pragma| connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
            assert_eq!(ask("foreign_keys").unwrap(), 1);
            assert_eq!(ask("synchronous").unwrap(), 2, "FULL");
            assert_eq!(ask("busy_timeout").unwrap(), 10_000);
            let mode: String = connection
                .pragma_query_value(None, "journal_mode", |r| r.get(0))
                .unwrap();
            assert_eq!(mode, "wal");
        }
    }

    #[test]
    fn uris_quote_what_is_theirs() {
        assert_eq!(
            immutable_uri(Path::new("/a%b?c#d")),
            "file:/a%25b%3fc%23d?immutable=1"
        );
    }
}
