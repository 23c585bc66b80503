//! How an app's command line is run.
#![forbid(unsafe_code)]

/// Sources what buildpacks and the app left for its environment, then becomes the command. `exec` twice, so that the
/// app itself gets SIGTERM and not a shell that waits for it.
const START: &str = r#"LC_ALL_WAS="${LC_ALL-unset}"; LC_ALL=C
for hokku_file in "$HOME"/.profile.d/*.sh; do
  [ "$LC_ALL_WAS" = unset ] && unset LC_ALL || LC_ALL="$LC_ALL_WAS"
  [ -r "$hokku_file" ] && . "$hokku_file"
done
[ "$LC_ALL_WAS" = unset ] && unset LC_ALL || LC_ALL="$LC_ALL_WAS"
unset LC_ALL_WAS hokku_file
[ -r "$HOME/.profile" ] && . "$HOME/.profile"
exec bash -c "$0""#;

/// The argv that runs `command` (a line of the Procfile, or what `run` was given) as Heroku does: `.profile.d/*.sh` in
/// C-locale order, `.profile`, then the command in bash.
pub fn shell_command(command: &str) -> Vec<String> {
    ["bash", "-c", START, command].map(str::to_owned).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::process::Command;

    fn run(files: &[(&str, &str)], command: &str) -> String {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join(".profile.d")).unwrap();
        for (name, text) in files {
            fs::write(home.path().join(name), text).unwrap();
        }
        let argv = shell_command(command);
        let mut shell = Command::new(&argv[0]);
        shell.args(&argv[1..]).env("HOME", home.path()).env("LC_ALL", "C.UTF-8");
        String::from_utf8(shell.output().unwrap().stdout).unwrap()
    }

    #[test]
    fn profiles_are_sourced_in_order_and_the_command_replaces_the_shell() {
        let files = [
            (".profile.d/a.sh", "TRACE=$TRACE-a"),
            (".profile.d/B.sh", "export TRACE=B"),
            (".profile.d/ignored.txt", "TRACE=wrong"),
            (".profile", "TRACE=$TRACE-profile"),
        ];
        assert_eq!(run(&files, "echo $TRACE $LC_ALL"), "B-a-profile C.UTF-8\n");
    }

    #[test]
    fn a_missing_profile_directory_is_fine_and_quotes_survive() {
        assert_eq!(run(&[], r#"echo "it's" '$HOME' "a  b""#), "it's $HOME a  b\n");
    }

    #[test]
    fn the_command_is_the_process_itself() {
        let home = tempfile::tempdir().unwrap();
        let argv = shell_command("echo $$ && exit 7");
        let mut shell = Command::new(&argv[0]);
        shell.args(&argv[1..]).env("HOME", home.path()).stdout(std::process::Stdio::piped());
        let child = shell.spawn().unwrap();
        let pid = child.id();
        let output = child.wait_with_output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), pid.to_string());
        assert_eq!(output.status.code(), Some(7));
    }
}
