//! Whole Dockerfiles: what they come down to, and what is refused.

use std::collections::BTreeMap;

use basalt_dockerfile::{Context, Dockerfile, Fault, Planned, StageFrom, stage_of};
use basalt_model::{BakeStep, CopyFrom, CopyStep, ImageConfig, RunStep};

fn parse(text: &str, args: &[(&str, &str)]) -> Result<Dockerfile, Vec<Fault>> {
    let args = args.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    Dockerfile::parse(text, &args, "amd64")
}

fn context() -> Context {
    Context { folder: "/src".into(), ignore: vec!["*.md".into()], network: true }
}

fn plan(text: &str, args: &[(&str, &str)], base: &ImageConfig) -> Planned {
    let file = parse(text, args).unwrap();
    file.plan(file.stages.len() - 1, base, &context()).unwrap()
}

fn runs(planned: &Planned) -> Vec<&RunStep> {
    planned.steps.iter().filter_map(|s| if let BakeStep::Run(run) = s { Some(run) } else { None }).collect()
}

fn copies(planned: &Planned) -> Vec<&CopyStep> {
    planned.steps.iter().filter_map(|s| if let BakeStep::Copy(copy) = s { Some(copy) } else { None }).collect()
}

#[test]
fn a_common_one() {
    let text = r#"
ARG VERSION=12
FROM debian:${VERSION}-slim AS build
ARG FLAGS="-O2 -g"
ENV PREFIX=/opt PATH=$PREFIX/bin:$PATH
WORKDIR /src
COPY --chown=app:app src/*.c Makefile ./
RUN make CFLAGS="$FLAGS" \
 && make install
FROM scratch
COPY --from=build --chmod=0755 /opt/bin/app /app
USER 1000:1000
EXPOSE 8080 53/udp
LABEL org.example.x="a b" two=2
ENTRYPOINT ["/app"]
CMD ["--serve"]
HEALTHCHECK CMD true
"#;
    let file = parse(text, &[("VERSION", "13")]).unwrap();
    assert_eq!(file.stages[0].from, StageFrom::Image("debian:13-slim".into()));
    assert_eq!(file.stages[1].from, StageFrom::Scratch);
    assert_eq!(file.notes.len(), 1);
    let base = ImageConfig { env: BTreeMap::from([("PATH".into(), "/bin".into())]), ..ImageConfig::default() };
    let build = file.plan(0, &base, &context()).unwrap();
    // One line of ENV sees what was before it, so PREFIX is not there yet.
    assert_eq!(build.config.env["PATH"], "/bin:/bin");
    assert_eq!(build.config.workdir, "/src");
    let run = runs(&build)[0];
    assert_eq!(run.command, ["/bin/sh", "-c", "make CFLAGS=\"$FLAGS\"  && make install"]);
    assert_eq!((run.env["FLAGS"].as_str(), run.workdir.as_str(), run.network), ("-O2 -g", "/src", true));
    let copied = copies(&build);
    assert_eq!(copied.len(), 2);
    assert_eq!(copied[0].from, CopyFrom::Folder { folder: "/src".into(), pattern: "src/*.c".into() });
    assert_eq!((copied[0].to.as_str(), copied[0].owner.as_deref()), ("/src/", Some("app:app")));
    assert_eq!(copied[0].exclude, ["*.md"]);

    let last = file.plan(1, &ImageConfig::default(), &context()).unwrap();
    let copied = copies(&last)[0];
    let CopyFrom::Image { image, path } = &copied.from else { panic!("{copied:?}") };
    assert_eq!((stage_of(image), path.as_str(), copied.mode), (Some(0), "/opt/bin/app", Some(0o755)));
    assert_eq!(last.config.command, ["/app", "--serve"]);
    assert_eq!(last.config.entrypoint, ["/app"]);
    assert_eq!(last.config.user, "1000:1000");
    assert_eq!(last.config.expose.iter().collect::<Vec<_>>(), ["53/udp", "8080/tcp"]);
    assert_eq!(last.config.labels["org.example.x"], "a b");
}

#[test]
fn commands_inherit_as_dockers_do() {
    let base = ImageConfig {
        command: vec!["/entry".into(), "serve".into()],
        entrypoint: vec!["/entry".into()],
        ..ImageConfig::default()
    };
    let check = |lines: &str, command: &[&str]| {
        assert_eq!(plan(&format!("FROM x\n{lines}\n"), &[], &base).config.command, command, "{lines}");
    };
    check("", &["/entry", "serve"]);
    check("CMD [\"other\"]", &["/entry", "other"]);
    check("ENTRYPOINT [\"/new\"]", &["/new"]);
    check("CMD [\"a\"]\nENTRYPOINT [\"/new\"]", &["/new", "a"]);
    check("CMD run it", &["/entry", "/bin/sh", "-c", "run it"]);
    check("SHELL [\"/bin/bash\", \"-lc\"]\nENTRYPOINT exec x", &["/bin/bash", "-lc", "exec x"]);
}

#[test]
fn here_documents() {
    let text = "FROM x\nRUN <<EOF\nset -e\necho $X\nEOF\nRUN cat <<'E' > /y\nz\nE\nRUN <<S\n#!/usr/bin/env python3\nprint(1)\nS\n\
                ENV X=1\nCOPY <<conf /etc/app.conf\nx=\"$X\"\nconf\n";
    let planned = plan(text, &[], &ImageConfig::default());
    let runs = runs(&planned);
    assert_eq!(runs[0].command, ["/bin/sh", "-c", "set -e\necho $X\n"]);
    assert_eq!(runs[1].command[2], "cat <<'E' > /y\nz\nE");
    assert_eq!(runs[2].command, ["/usr/bin/env", "python3", "/dev/basalt/script"]);
    let BakeStep::File(file) = &planned.steps[3] else { panic!("{:?}", planned.steps) };
    assert_eq!((file.path.as_str(), file.content.as_str()), ("/etc/app.conf", "x=\"1\"\n"));
}

#[test]
fn arguments_are_declared_where_they_are_used() {
    let text = "ARG A=1\nARG B\nFROM x\nARG A\nARG B=2\nARG C=$A$B\nRUN true\n";
    let planned = plan(text, &[("B", "3")], &ImageConfig::default());
    let env = &runs(&planned)[0].env;
    assert_eq!((env["A"].as_str(), env["B"].as_str(), env["C"].as_str()), ("1", "3", "13"));
    let planned = plan("ARG A=1\nFROM x\nRUN true\n", &[], &ImageConfig::default());
    assert!(!runs(&planned)[0].env.contains_key("A"), "it was not declared in the stage");
}

#[test]
fn what_is_not_taken_is_refused_with_its_line() {
    let check = |text: &str, line: usize, part: &str| match parse(text, &[]) {
        Err(faults) => {
            let fault = &faults[0];
            assert!(fault.line == line && fault.message.contains(part), "{text}: {fault:?}");
        }
        Ok(file) => {
            let n = file.stages.len() - 1;
            let fault = file.plan(n, &ImageConfig::default(), &context()).unwrap_err();
            assert!(fault.line == line && fault.message.contains(part), "{text}: {fault:?}");
        }
    };
    check("RUN x\n", 1, "before the first FROM");
    check("", 1, "no FROM");
    check("FROM x\nONBUILD RUN y\n", 2, "ONBUILD");
    check("FROM x\nRUNN y\n", 2, "no instruction `RUNN`");
    check("FROM x\n\nRUN --mount=type=cache,target=/c y\n", 3, "`--mount` of RUN");
    check("FROM x\nRUN --security=insecure y\n", 2, "`--security`");
    check("FROM x\nADD https://example.com/a /a\n", 2, "check its hash");
    check("FROM x\nADD --checksum=sha256:1 a /a\n", 2, "`--checksum`");
    check("FROM x\nCOPY a\n", 2, "where to");
    check("FROM x\nCOPY a b /c\n", 2, "must be a folder");
    check("FROM x\nCOPY --chmod=u+x a /a\n", 2, "octal");
    check("FROM x AS\n", 1, "AS NAME");
    check("FROM --platform=linux/s390x x\n", 1, "linux/amd64");
    check("FROM x\nEXPOSE http\n", 2, "not a port");
    check("FROM x\nENV A\n", 2, "no value");
    check("FROM x\nSHELL bash\n", 2, "list");
    check("FROM x\nENV A=${B#c}\n", 2, "not taken");
    check("FROM $NO\n", 1, "is empty");
    check("FROM x\nRUN <<E\n", 2, "does not end");
}

#[test]
fn faults_come_all_at_once() {
    let faults = parse("FROM x\nONBUILD RUN y\nFOO\nRUN --mount=x y\n", &[("NO", "1")]).unwrap_err();
    assert_eq!(faults.iter().map(|f| f.line).collect::<Vec<_>>(), [2, 3, 4, 1]);
}
