//! `image prune`: images that nobody uses go, and layers that no image needs, after a question.

use super::{Several, image::names, print_json, print_text, prune};
use crate::{
    args::ImagePruneArgs,
    connection::Daemon,
    failure::{Failure, tell},
    render,
};
use banger_wire::api::{
    BlobPrune, BlobView, ImageDelete, ImageList, ImageShow, ImageView, ImagesPruned,
};
use std::process::ExitCode;

/// Says what is there to go, asks, deletes it, and says what went.
pub async fn prune(args: ImagePruneArgs) -> Result<ExitCode, Failure> {
    let daemon = Daemon::of_this_user()?;
    let all: Vec<ImageView> = daemon.call(&ImageList {}).await?;
    let goes = |image: &ImageView| goes(image, args.all);
    let images: Vec<ImageView> = all.into_iter().filter(goes).collect();
    let without = images.iter().map(|image| image.id.clone());
    let request = BlobPrune {
        all: args.all,
        dry_run: true,
        without: without.collect(),
    };
    let blobs = daemon.call(&request).await?;
    let would = pruned(images, blobs);
    if args.dry_run {
        told(&would, &args)?;
        return Ok(ExitCode::SUCCESS);
    }
    if !args.force {
        prune::somebody_is_there("banger image prune --force; --dry-run says what would go")?;
        let empty = would.images.is_empty() && would.blobs.is_empty();
        if !empty && !prune::agreed(&listed(&would), would.bytes)? {
            tell("nothing was removed");
            return Ok(ExitCode::SUCCESS);
        }
    }
    let mut gone = Several::new();
    for image in would.images {
        gone.add(delete(&daemon, &image).await.map(|()| image));
    }
    let request = BlobPrune {
        dry_run: false,
        without: Vec::new(),
        ..request
    };
    let blobs = daemon.call(&request).await?;
    told(&pruned(gone.good, blobs), &args)?;
    Ok(gone.status)
}

/// Whether it is nobody's: of no VM, and of no name unless named ones are meant too.
fn goes(image: &ImageView, all: bool) -> bool {
    image.used_by.is_empty() && (all || image.names.is_empty())
}

/// Deletes an image that is still as it was told; a VM that uses it meanwhile keeps it.
async fn delete(daemon: &Daemon, image: &ImageView) -> Result<(), Failure> {
    let id = image.id.clone();
    let now = daemon.call(&ImageShow { image: id.clone() }).await?;
    if now.names != image.names {
        return Err(
            Failure::new(format!("image {id} has other names now, and stays"))
                .hint("banger image prune"),
        );
    }
    let request = ImageDelete {
        image: id,
        force: true,
    };
    daemon.call(&request).await.map(drop)
}

fn pruned(images: Vec<ImageView>, blobs: Vec<BlobView>) -> ImagesPruned {
    let files: u64 = images.iter().map(|image| image.disk_usage).sum();
    let bytes = files + blobs.iter().map(|blob| blob.size).sum::<u64>();
    ImagesPruned {
        images,
        blobs,
        bytes,
    }
}

fn told(pruned: &ImagesPruned, args: &ImagePruneArgs) -> Result<(), Failure> {
    if args.json {
        return print_json(pruned);
    }
    let sum = if args.dry_run { "would free" } else { "freed" };
    print_text(&format!(
        "{}{sum} {}\n",
        listed(pruned),
        render::size(pruned.bytes)
    ))
}

fn listed(pruned: &ImagesPruned) -> String {
    let now = render::now();
    let image = |image: &ImageView| {
        vec![
            names(image),
            image.id.clone(),
            render::size(image.disk_usage),
            render::age(now, image.created_at),
        ]
    };
    let blob = |blob: &BlobView| {
        let kind = if blob.whole {
            "a layer"
        } else {
            "part of a layer"
        };
        let short: String = blob.digest.chars().take("sha256:".len() + 12).collect();
        vec![kind.to_owned(), short, render::size(blob.size), "-".into()]
    };
    let rows = pruned.images.iter().map(image);
    let rows: Vec<_> = rows.chain(pruned.blobs.iter().map(blob)).collect();
    match rows.is_empty() {
        true => String::new(),
        false => render::table(&["NAME", "ID", "ON DISK", "CREATED"], &rows),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_a_name_or_a_vm_stays() {
        let image = |names: &[&str], used_by: &[&str]| -> ImageView {
            let json = serde_json::json!({
                "id": "0123456789ab", "names": names, "digest": "", "size": 0, "disk_usage": 0,
                "created_at": 0, "arch": "", "used_by": used_by,
            });
            serde_json::from_value(json).expect("an image")
        };
        for (names, used_by, goes_unnamed, goes_all) in [
            (&[][..], &[][..], true, true),
            (&["a"], &[], false, true),
            (&[], &["vm"], false, false),
            (&["a"], &["vm"], false, false),
        ] {
            let image = image(names, used_by);
            assert_eq!(goes(&image, false), goes_unnamed, "{image:?}");
            assert_eq!(goes(&image, true), goes_all, "{image:?}");
        }
    }
}
