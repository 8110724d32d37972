//! Why a request to a registry came to nothing, and whether asking again may help.

use crate::route::Route;

/// Why there is no good answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// This status.
    #[error("it answers {0}")]
    Status(u16),
    /// No answer, or one that broke off.
    #[error(transparent)]
    Request(reqwest::Error),
    /// It ended before it was whole.
    #[error("it broke off")]
    Cut,
    /// One that means nothing.
    #[error("{0}")]
    Odd(String),
}

/// What a fault means for who asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Who asks must be somebody else.
    Denied,
    /// It is not there.
    Missing,
    /// No connection came about.
    Unreachable,
    /// It may be better the next time.
    Passing,
    /// It will not be better.
    Lasting,
}

impl Fault {
    /// What it means.
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Fault::Status(401 | 403) => Kind::Denied,
            Fault::Status(404) => Kind::Missing,
            Fault::Status(408 | 429 | 500..=599) | Fault::Cut => Kind::Passing,
            Fault::Status(_) | Fault::Odd(_) => Kind::Lasting,
            Fault::Request(error) if error.is_connect() => Kind::Unreachable,
            Fault::Request(error) if error.is_builder() || error.is_redirect() => Kind::Lasting,
            Fault::Request(_) => Kind::Passing,
        }
    }

    /// It and what is behind it, on one line.
    pub(crate) fn told(&self) -> String {
        let mut text = match self {
            Fault::Request(error) if error.is_timeout() => {
                return format!("no answer for {} s", Route::SILENCE.as_secs());
            }
            other => other.to_string(),
        };
        let mut source = std::error::Error::source(self);
        while let Some(error) = source {
            text = format!("{text}: {error}");
            source = error.source();
        }
        text.chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .take(500)
            .collect()
    }
}

/// Without its address: who redirects puts secrets into those.
impl From<reqwest::Error> for Fault {
    fn from(error: reqwest::Error) -> Self {
        Fault::Request(error.without_url())
    }
}

/// What a fault says, as the source of another error.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Said(pub(crate) String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_is_told_from_what_stays() {
        for (code, means) in [
            (401, Kind::Denied),
            (403, Kind::Denied),
            (404, Kind::Missing),
            (408, Kind::Passing),
            (429, Kind::Passing),
            (500, Kind::Passing),
            (503, Kind::Passing),
            (400, Kind::Lasting),
            (416, Kind::Lasting),
        ] {
            assert_eq!(Fault::Status(code).kind(), means, "{code}");
        }
        assert_eq!(Fault::Cut.kind(), Kind::Passing);
    }
}
