//! The one form in which a failure reaches a client.

use banger_model::OpId;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What kind of failure it is, as far as a program would act on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The request itself is wrong: nothing was tried.
    BadRequest,
    /// No such VM, image, kernel or operation.
    NotFound,
    /// The name is taken.
    AlreadyExists,
    /// Another request got in first.
    Conflict,
    /// The state of a thing does not allow it now.
    Precondition,
    /// The daemon cannot do this now: read-only, shutting down, disk full.
    Unavailable,
    /// It was tried and failed.
    OperationFailed,
    /// The caller may not do this.
    Unauthorized,
    /// Client and daemon speak different API versions.
    BadVersion,
}

impl Code {
    /// Every kind.
    pub const ALL: [Code; 9] = [
        Code::BadRequest,
        Code::NotFound,
        Code::AlreadyExists,
        Code::Conflict,
        Code::Precondition,
        Code::Unavailable,
        Code::OperationFailed,
        Code::Unauthorized,
        Code::BadVersion,
    ];

    /// The HTTP status that goes with it.
    pub const fn status(self) -> u16 {
        match self {
            Code::BadRequest => 400,
            Code::NotFound => 404,
            Code::AlreadyExists | Code::Conflict => 409,
            Code::Precondition => 412,
            Code::Unavailable => 503,
            Code::OperationFailed => 500,
            Code::Unauthorized => 403,
            Code::BadVersion => 426,
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Code::BadRequest => "bad request",
            Code::NotFound => "not found",
            Code::AlreadyExists => "already exists",
            Code::Conflict => "conflict",
            Code::Precondition => "precondition failed",
            Code::Unavailable => "unavailable",
            Code::OperationFailed => "operation failed",
            Code::Unauthorized => "unauthorized",
            Code::BadVersion => "version mismatch",
        })
    }
}

/// A failure: what, why, and what to do next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ApiError {
    /// Kind.
    pub code: Code,
    /// What failed, one sentence without a full stop.
    pub message: String,
    /// Why, outermost cause first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cause: Vec<String>,
    /// The next command or file to look at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Operation whose log lines belong to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub op_id: Option<OpId>,
    /// What is not here, and `image.pull` may bring.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pullable: Option<Box<Pullable>>,
    /// What else is wrong, each with its own way out: a request is refused for everything at once (R-SVC-8).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<ApiError>,
}

/// An image that is not here and that a registry may have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Pullable {
    /// What to pull.
    pub reference: String,
}

impl ApiError {
    /// A failure of this kind.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        ApiError {
            code,
            message: message.into(),
            cause: Vec::new(),
            hint: None,
            op_id: None,
            pullable: None,
            also: Vec::new(),
        }
    }

    /// Several failures as one, in this order: the first is told as itself, the others beside it.
    ///
    /// # Errors
    /// There is at least one.
    pub fn all(failures: impl IntoIterator<Item = ApiError>) -> Result<(), ApiError> {
        let mut failures = failures.into_iter();
        match failures.next() {
            None => Ok(()),
            Some(mut first) => {
                first.also.extend(failures);
                Err(first)
            }
        }
    }

    /// A failure of this kind told by an error and its sources.
    pub fn of(code: Code, error: &(dyn std::error::Error + 'static)) -> Self {
        let mut told = ApiError::new(code, error.to_string());
        told.cause = sources(error);
        told
    }

    /// The same failure, caused by an error and its sources.
    #[must_use]
    pub fn caused_by(mut self, error: &(dyn std::error::Error + 'static)) -> Self {
        self.cause.push(error.to_string());
        self.cause.extend(sources(error));
        self
    }

    /// The same failure with a way out.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// What is behind an error, the nearest first.
pub fn sources(error: &(dyn std::error::Error + 'static)) -> Vec<String> {
    std::iter::successors(error.source(), |e| e.source())
        .map(ToString::to_string)
        .collect()
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        self.cause.iter().try_for_each(|c| write!(f, ": {c}"))?;
        self.also.iter().try_for_each(|e| write!(f, "; also: {e}"))
    }
}

impl std::error::Error for ApiError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_json() {
        let error = ApiError::new(Code::AlreadyExists, "a VM named 'dev' already exists")
            .hint("banger vm exec dev -- sh");
        assert_eq!(
            serde_json::to_string(&error).unwrap(),
            r#"{"code":"already_exists","message":"a VM named 'dev' already exists","hint":"banger vm exec dev -- sh"}"#
        );
    }

    /// R-SVC-8: no failure of several is lost on the way, and the first one stands where a single one would.
    #[test]
    fn several_failures_are_one_answer() {
        assert_eq!(ApiError::all([]), Ok(()));
        let image = ApiError::new(Code::NotFound, "no image").hint("leave it out");
        let vmm = ApiError::new(Code::Precondition, "no QEMU").hint("install it");
        assert_eq!(ApiError::all([image.clone()]), Err(image.clone()));
        let all = ApiError::all([image, vmm]).unwrap_err();
        assert_eq!(all.to_string(), "no image; also: no QEMU");
        let json = serde_json::to_string(&all).unwrap();
        assert_eq!(
            json,
            r#"{"code":"not_found","message":"no image","hint":"leave it out","also":[{"code":"precondition","message":"no QEMU","hint":"install it"}]}"#
        );
        assert_eq!(serde_json::from_str::<ApiError>(&json).unwrap(), all);
    }
}
