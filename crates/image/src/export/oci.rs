//! An OCI image layout of one layer, as a tar (`oci-archive`). Beside it is what Docker's own archives have, so that
//! `docker load` of any age reads it.

use super::{END, Exported, file_header, layer, put};
use crate::manifest::pulled_name;
use crate::{Error, Manifest, Progress, Result, digest};
use banger_ext4::{FileSystem, ReadAt};
use banger_model::{ImageConfig, ImageReference, ImageStep, hex};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::io::{self, Write};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// The step of an image's history that is the export.
const STEP: &str = "banger image export";

/// Digest and length of what is written to nowhere.
#[derive(Default)]
struct Weighed {
    hash: Sha256,
    len: u64,
}

impl Write for Weighed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.hash.update(bytes);
        self.len += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A document or layer of the layout.
struct Blob {
    kind: &'static str,
    sha256: String,
    len: u64,
}

impl Blob {
    fn of(kind: &'static str, bytes: &[u8]) -> Self {
        Blob {
            kind,
            sha256: digest::sha256(bytes),
            len: bytes.len() as u64,
        }
    }

    fn path(&self) -> String {
        format!("blobs/sha256/{}", self.sha256)
    }

    fn descriptor(&self) -> Value {
        json!({"mediaType": self.kind, "digest": format!("sha256:{}", self.sha256), "size": self.len})
    }
}

/// Writes the archive. The layer is made twice: a blob is called by its digest, which stands before its bytes.
pub(super) fn write<R: ReadAt>(
    image: &Manifest,
    name: Option<&str>,
    fs: &FileSystem<R>,
    out: &mut dyn Write,
    progress: &dyn Progress,
) -> Result<Exported> {
    progress.stage("reading the image");
    let mut weighed = Weighed::default();
    let sockets = layer::write(fs, &mut weighed, progress)?;
    let layer = Blob {
        kind: LAYER,
        sha256: hex::encode(&weighed.hash.finalize()),
        len: weighed.len,
    };
    let config_text = text(&config(image, &layer.sha256))?;
    let config = Blob::of(CONFIG, &config_text);
    let manifest_text = text(&json!({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": config.descriptor(), "layers": [layer.descriptor()],
    }))?;
    let manifest = Blob::of(MANIFEST, &manifest_text);
    let index = json!({
        "schemaVersion": 2, "mediaType": INDEX,
        "manifests": [described(&manifest, image, name)],
    });
    let saved = json!([{
        "Config": config.path(), "RepoTags": name.and_then(pulled_name).map(|name| [name]),
        "Layers": [layer.path()],
    }]);
    progress.stage("writing the archive");
    put(out, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    put(out, "index.json", &text(&index)?)?;
    put(out, "manifest.json", &text(&saved)?)?;
    put(out, &manifest.path(), &manifest_text)?;
    put(out, &config.path(), &config_text)?;
    let header = file_header(&layer.path(), layer.len)?;
    out.write_all(header.as_bytes()).map_err(Error::Write)?;
    layer::write(fs, out, progress)?;
    // A tar has whole blocks.
    out.write_all(&END).map_err(Error::Write)?;
    Ok(Exported { sockets })
}

fn text(value: &Value) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|error| Error::Write(error.into()))
}

/// The index's word for the manifest.
fn described(manifest: &Blob, image: &Manifest, name: Option<&str>) -> Value {
    let mut described = manifest.descriptor();
    described["platform"] = json!({"architecture": architecture(&image.arch), "os": "linux"});
    let reference = name.and_then(|name| name.parse::<ImageReference>().ok());
    if let Some(reference) = reference {
        described["annotations"] = json!({
            "org.opencontainers.image.ref.name": reference.tag().unwrap_or("latest"),
            "io.containerd.image.name": reference.to_string(),
        });
    }
    described
}

/// Go's name of an architecture.
fn architecture(uname: &str) -> &str {
    match uname {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn config(image: &Manifest, diff_id: &str) -> Value {
    let origin = image.origin.clone().unwrap_or_default();
    let created = origin.created.clone();
    let mut steps = origin.history;
    steps.retain(|step| step.created_by.as_deref() != Some(STEP));
    for step in &mut steps {
        // What it made is in the one layer there is.
        step.empty_layer = true;
    }
    steps.push(ImageStep {
        created: created.clone(),
        created_by: Some(STEP.to_owned()),
        comment: Some("all layers are one".to_owned()),
        ..ImageStep::default()
    });
    let mut run_as = run_as(image.config.as_ref());
    if !origin.labels.is_empty() {
        run_as.insert("Labels".to_owned(), json!(origin.labels));
    }
    let mut config = json!({
        "architecture": architecture(&image.arch), "os": "linux", "config": run_as,
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{diff_id}")]},
        "history": steps,
    });
    if let Some(created) = created {
        config["created"] = json!(created);
    }
    config
}

/// How it is run; what is not said is left out.
fn run_as(config: Option<&ImageConfig>) -> Map<String, Value> {
    let mut told = Map::new();
    let Some(config) = config else {
        return told;
    };
    for (key, words) in [
        ("Entrypoint", &config.entrypoint),
        ("Cmd", &config.cmd),
        ("Env", &config.env),
    ] {
        if !words.is_empty() {
            told.insert(key.to_owned(), json!(words));
        }
    }
    for (key, word) in [
        ("WorkingDir", &config.workdir),
        ("User", &config.user),
        ("StopSignal", &config.stop_signal),
    ] {
        if let Some(word) = word {
            told.insert(key.to_owned(), json!(word));
        }
    }
    if !config.exposed_ports.is_empty() {
        let ports = config.exposed_ports.iter();
        let ports: Map<_, _> = ports.map(|port| (port.clone(), json!({}))).collect();
        told.insert("ExposedPorts".to_owned(), ports.into());
    }
    told
}
