//! From source to a build: what `hokku deploy` and the git hook do alike.
#![forbid(unsafe_code)]

use super::{Body, Call, Client, ClientError, Download, Method, segment};
use hyper::header::{self, HeaderName};
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;

/// With this header the server cancels the build when the reader of its output goes away before the release is made.
const ATTACHED: HeaderName = HeaderName::from_static("x-hokku-attached");

/// A build as far as a client follows it.
#[derive(Clone, Debug, Deserialize)]
pub struct Build {
    pub id: String,
    /// `pending`, `succeeded`, `failed`.
    pub status: String,
    pub output_stream_url: Option<String>,
    pub release: Option<Reference>,
}

/// Another resource, by its id.
#[derive(Clone, Debug, Deserialize)]
pub struct Reference {
    pub id: String,
}

/// What to build.
#[derive(Clone, Debug, Default)]
pub struct BuildRequest {
    /// What [`Client::upload_source`] gave.
    pub url: String,
    /// What the client calls its source: for a push the commit.
    pub version: Option<String>,
    /// `SHA256:…` of the archive.
    pub checksum: Option<String>,
    /// Buildpacks for this build only; empty for the app's own.
    pub buildpacks: Vec<String>,
    /// Cancel the build when the reader of its output goes away.
    pub attached: bool,
}

impl Client {
    /// Sends a source archive (`.tar`, `.tar.gz`, `.tar.zst`) and returns the URL to build from.
    ///
    /// # Errors
    /// When the server can't be reached or refuses, or the body breaks.
    pub async fn upload_source(&self, archive: Body) -> Result<String, ClientError> {
        #[derive(Deserialize)]
        struct Source {
            source_blob: Blob,
        }
        #[derive(Deserialize)]
        struct Blob {
            get_url: String,
            put_url: String,
        }
        let Source { source_blob: Blob { get_url, put_url } } = self.post("/sources", &json!({})).await?;
        let put = Call::new(Method::PUT, put_url).header(header::CONTENT_TYPE, "application/octet-stream");
        self.send(put.body(archive)).await?;
        Ok(get_url)
    }

    /// # Errors
    /// When the server can't be reached or refuses.
    pub async fn create_build(&self, app: &str, request: &BuildRequest) -> Result<Build, ClientError> {
        let mut body = json!({ "source_blob": {
            "url": request.url, "version": request.version, "checksum": request.checksum,
        } });
        if !request.buildpacks.is_empty() {
            body["buildpacks"] = request.buildpacks.iter().map(|url| json!({ "url": url })).collect();
        }
        self.start(format!("/apps/{}/builds", segment(app)), &body, request.attached).await
    }

    /// Builds an app's last source again.
    ///
    /// # Errors
    /// When the server can't be reached or refuses.
    pub async fn rebuild(&self, app: &str, attached: bool) -> Result<Build, ClientError> {
        self.start(format!("/apps/{}/builds/actions/rebuild", segment(app)), &json!({}), attached).await
    }

    async fn start(&self, path: String, body: &Value, attached: bool) -> Result<Build, ClientError> {
        let mut call = Call::new(Method::POST, path).json(body);
        if attached {
            call = call.header(ATTACHED, "1");
        }
        self.json(call).await
    }

    /// The build's output from its beginning; it ends when the build has failed or its release has settled.
    ///
    /// # Errors
    /// When the server can't be reached or refuses.
    pub async fn build_output(&self, build: &Build) -> Result<Download, ClientError> {
        let url = build.output_stream_url.as_ref().ok_or_else(|| ClientError::Url(String::new()))?;
        self.download(url).await
    }

    /// Waits until the build has succeeded or failed.
    ///
    /// # Errors
    /// When the server can't be reached or refuses.
    pub async fn settled(&self, app: &str, id: &str) -> Result<Build, ClientError> {
        let mut pause = Duration::from_millis(20);
        loop {
            let build: Build = self.get(&build_path(app, id)).await?;
            if build.status != "pending" {
                return Ok(build);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    }

    /// # Errors
    /// When the server can't be reached, or refuses because it is too late.
    pub async fn cancel_build(&self, app: &str, id: &str) -> Result<(), ClientError> {
        self.delete::<Value>(&build_path(app, id)).await.map(|_| ())
    }

    /// Whether what the build released has failed after all.
    ///
    /// # Errors
    /// When the server can't be reached or refuses.
    pub async fn release_failed(&self, app: &str, build: &Build) -> Result<bool, ClientError> {
        let Some(release) = &build.release else { return Ok(false) };
        let path = format!("/apps/{}/releases/{}", segment(app), segment(&release.id));
        Ok(self.get::<Value>(&path).await?["status"] == "failed")
    }
}

fn build_path(app: &str, id: &str) -> String {
    format!("/apps/{}/builds/{}", segment(app), segment(id))
}
