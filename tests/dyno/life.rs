//! How dynos start, end and talk.

use super::stage::Stage;

#[tokio::test]
async fn a_program_runs_prints_and_its_status_is_known() {
    let mut stage = Stage::new().await;
    let ran = stage.shell("id -u; pwd; echo oops >&2; printf unfinished; exit 3").await;
    assert_eq!((ran.exit.code, ran.exit.signal, ran.exit.oom), (3, None, false), "{ran:?}");
    let mut output = ran.output;
    output.sort();
    assert_eq!(output, ["/app", "1000", "oops", "unfinished"]);
}
