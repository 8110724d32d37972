//! The one place where failures become text and exit status: what, why, and the next command.

use banger_wire::api::{ApiError, ClientError};
use std::{
    error::Error,
    io::{self, Write},
    process::ExitCode,
};

/// banger failed, as opposed to the command it ran (R-CLI: exit status).
pub const BANGER_FAILED: u8 = 125;

/// A failure ready to be told.
#[derive(Debug)]
pub struct Failure {
    message: String,
    causes: Vec<String>,
    hint: Option<String>,
    operation: Option<String>,
}

impl Failure {
    /// A failure of the command line itself.
    pub fn new(message: impl Into<String>) -> Self {
        Failure {
            message: message.into(),
            causes: Vec::new(),
            hint: None,
            operation: None,
        }
    }

    /// Adds an error and its sources as causes.
    #[must_use]
    pub fn caused_by(mut self, error: &(dyn Error + 'static)) -> Self {
        self.causes.push(error.to_string());
        self.causes.extend(sources(error));
        self
    }

    /// Adds the next command to type.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The text for stderr, one fact per line.
    pub fn text(&self) -> String {
        let mut text = format!("banger: {}", self.message);
        for cause in &self.causes {
            text.push_str(": ");
            text.push_str(cause);
        }
        if let Some(hint) = &self.hint {
            text.push_str("\nhint: ");
            text.push_str(hint);
        }
        if let Some(operation) = &self.operation {
            text.push_str("\noperation: ");
            text.push_str(operation);
        }
        text
    }

    /// Prints it and gives the exit status.
    pub fn report(&self) -> ExitCode {
        tell(&self.text());
        ExitCode::from(BANGER_FAILED)
    }
}

/// Says a line on stderr; if that is closed or full there is nobody to tell.
pub fn tell(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

fn sources(error: &(dyn Error + 'static)) -> Vec<String> {
    let mut texts = Vec::new();
    let mut next = error.source();
    while let Some(cause) = next {
        texts.push(cause.to_string());
        next = cause.source();
    }
    texts
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Failure {
            message: error.message,
            causes: error.cause,
            hint: error.hint,
            operation: error.op_id.map(|id| id.to_string()),
        }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Api(error) => error.into(),
            other => {
                let mut failure = Failure::new(other.to_string());
                failure.causes.extend(sources(&other));
                failure.hint("banger daemon status")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use banger_wire::api::Code;

    #[test]
    fn a_failure_says_what_why_and_what_next() {
        let mut error = ApiError::new(Code::NotFound, "no VM is called 'x'").hint("banger vm list");
        error.cause.push("its row is missing".into());
        assert_eq!(
            Failure::from(error).text(),
            "banger: no VM is called 'x': its row is missing\nhint: banger vm list"
        );
    }
}
