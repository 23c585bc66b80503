//! Heroku's error codes of the router.
#![forbid(unsafe_code)]

/// Why a request was not simply forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    H10,
    H11,
    H12,
    H13,
    H14,
    H15,
    H17,
    H18,
    H19,
    H20,
    H21,
    H26,
    H27,
    H28,
    H80,
    H81,
    H99,
}

impl Code {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::H10 => "H10",
            Self::H11 => "H11",
            Self::H12 => "H12",
            Self::H13 => "H13",
            Self::H14 => "H14",
            Self::H15 => "H15",
            Self::H17 => "H17",
            Self::H18 => "H18",
            Self::H19 => "H19",
            Self::H20 => "H20",
            Self::H21 => "H21",
            Self::H26 => "H26",
            Self::H27 => "H27",
            Self::H28 => "H28",
            Self::H80 => "H80",
            Self::H81 => "H81",
            Self::H99 => "H99",
        }
    }

    /// `desc` of the access line.
    pub(super) fn description(self) -> &'static str {
        match self {
            Self::H10 => "App crashed",
            Self::H11 => "Backlog too deep",
            Self::H12 => "Request timeout",
            Self::H13 => "Connection closed without response",
            Self::H14 => "No web dynos running",
            Self::H15 => "Idle connection",
            Self::H17 => "Poorly formatted HTTP response",
            Self::H18 => "Server Request Interrupted",
            Self::H19 => "Backend connection timeout",
            Self::H20 => "App boot timeout",
            Self::H21 => "Backend connection refused",
            Self::H26 => "Request Error",
            Self::H27 => "Client Request Interrupted",
            Self::H28 => "Client Connection Idle",
            Self::H80 => "Maintenance mode",
            Self::H81 => "Blank app",
            Self::H99 => "Platform error",
        }
    }

    /// `at` of the access line.
    pub(super) fn level(self) -> &'static str {
        match self {
            Self::H27 | Self::H28 => "warning",
            Self::H80 => "info",
            _ => "error",
        }
    }

    /// `status` of the access line, and of the answer where there is one.
    pub(super) fn status(self) -> u16 {
        match self {
            Self::H26 => 400,
            Self::H27 | Self::H28 => 499,
            Self::H81 => 502,
            _ => 503,
        }
    }

    /// Which side broke off, for the lines that say so.
    pub(super) fn side(self) -> Option<&'static str> {
        match self {
            Self::H18 => Some("backend"),
            Self::H27 | Self::H28 => Some("client"),
            _ => None,
        }
    }
}
