"""Forms of secrets in texts and names: a labelled set of planted ones, and of what only looks like them."""

from __future__ import annotations

import re
import sysconfig
import tomllib
from importlib import resources
from pathlib import Path

import pytest

from orchestrator.context.secrets import is_secret_file, kinds, redact, redact_part, secrets_in
from orchestrator.context.words import vocabulary
from tests.support.secrets import key_lines, planted, random_text

SHAPES = {
    "file": "{}",
    "added": "+{}",
    "removed": "-{}",
    "unchanged": " {}",
    "windows": "{}\r",
    "windows-added": "+{}\r",
    "list": "  - {}",
    "prose": "we set {} in production",
    "code-in-prose": "Deployed with `{}`, see below.",
    "end-of-sentence": "It wants {}.",
}


@pytest.mark.parametrize("shape", SHAPES)
def test_planted_secrets_are_found(shape: str) -> None:
    """A well-known form of token passed into an agent's context, or was hidden in a file and shown in its diff, in a
    file of Windows, or in a sentence of an earlier agent. Recall on 48 kinds, at least 0.95 (each 6 times)."""
    found = total = 0
    missed = []
    for seed in range(1, 7):
        for kind, (secret, line) in planted(seed * 1000).items():
            total += 1
            text = f"import os\n{SHAPES[shape].format(line)}\nrest = 1\n"
            result = redact(text)
            if secret not in result and "[redacted:" in result:
                found += 1
            else:
                missed.append((kind, line))
            assert result.count("\n") == text.count("\n")
    assert len(planted(1)) >= 25
    assert found / total >= 0.95, missed


def test_a_known_vocabulary_hides_the_same() -> None:
    """A secret in a file was shown that the same text elsewhere did not show: what the file's words are is told to the
    redaction, so that it need not take the text apart again."""
    for secret, line in planted(5).values():
        text = f"first = 1\n{line}\nlast = 2\n"
        hidden = redact(text, vocabulary(text.lower().encode()))
        assert hidden == redact(text)
        assert secret not in hidden
    plain = "nothing = 1\n"
    assert redact(plain, vocabulary(plain.encode())) is plain


def test_private_keys_are_hidden_and_lines_kept() -> None:
    """A key block was half hidden, or the line numbers after it moved."""
    body = "\n".join(random_text(64, n) for n in range(12))
    for name in ("RSA ", "EC ", "OPENSSH ", "ENCRYPTED ", ""):
        text = f"a\n-----BEGIN {name}PRIVATE" + f" KEY-----\n{body}\n-----END {name}PRIVATE" + " KEY-----\nz\n"
        result = redact(text)
        assert result.count("\n") == text.count("\n")
        assert body.split("\n")[3] not in result
        assert result.endswith("\nz\n")


@pytest.mark.parametrize(
    ("before", "between", "after"),
    [
        ("", "\n", ""), ("", "\r\n", "\r"), ("+", "\n+", ""), ("-", "\n-", ""), ("    ", "\n    ", ""),
        ("# ", "\n# ", ""),
        ('{"key": "', "\\n", '"}'), ('"{\\"key\\": \\"', "\\\\n", '\\"}"'), ("KEY=", " ", ""),
        ('"', '\\n" +\n  "', '"'),
    ],
)  # fmt: skip
@pytest.mark.parametrize("is_cut", [False, True])
def test_private_keys_are_hidden_however_they_are_written(before: str, between: str, after: str, is_cut: bool) -> None:
    """Some lines of a key were shown in a diff, in a literal, or where its end was cut off."""
    lines = key_lines()[: 8 if is_cut else None]
    text = f"a\n{before}{between.join(lines)}{after}\nz = 1\n"
    result = redact(text)
    assert not [line for line in lines[1:] if line in result]
    assert result.count("\n") == text.count("\n")
    assert result.endswith("\nz = 1\n")


def test_a_source_that_names_the_mark_of_a_key_is_shown() -> None:
    """879 of 2,000 functions vanished behind one mark, since a source looked for keys by it."""
    functions = "".join(f"def f{number}():\n    return {number}\n" for number in range(2000))
    text = f"MARK = '{key_lines()[0]}'\nPUTTY = 'PuTTY-User-Key-File-2: '\n{functions}"
    assert redact(text) is text


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_lines_of_a_key_are_hidden_without_its_marks(end: str) -> None:
    """A diff that changed the middle of a key showed seven lines of it."""
    key = key_lines()
    signs = "   -+  "
    diff = "@@ -3,7 +3,7 @@" + end + "".join(f"{sign}{line}{end}" for sign, line in zip(signs, key[3:], strict=False))
    assert not [line for line in key[3:10] if line in redact_part(diff)]
    assert redact_part(diff).count("\n") == diff.count("\n")
    last = " " + f"{end} ".join(key[8:])
    assert not [line for line in key[8:-1] if line in redact_part(last)]


def test_public_lines_stay_in_a_diff() -> None:
    """Certificates and lists of hashes in a diff were taken for keys."""
    body = "\n+".join(key_lines()[1:-1])
    for kind in ("CERTIFICATE", "PUBLIC KEY"):
        for text in (f"+-----BEGIN {kind}-----\n+{body}\n", f"+{body}\n+-----END {kind}-----\n"):
            assert redact_part(text) == text
    hashes = "\n".join(random_text(64, seed, "0123456789abcdef") for seed in range(9))
    assert redact_part(hashes) == hashes


@pytest.mark.parametrize("before", ["", "+"])
def test_keys_of_putty_are_hidden(before: str) -> None:
    """Each header was followed for 20,000 characters, and a changed key was hidden only with its end."""
    body = key_lines()[1:-1]
    lines = ["PuTTY-User-Key" + "-File-2: ssh-rsa", "Encryption: none", "Comment: a b", "Public-Lines: 6", *body[:6]]
    lines += ["Private-Lines: 7", *body[6:], "Private-MAC: " + "a1" * 20]
    text = "".join(f"{before}{line}\n" for line in lines)
    for shown in (text, text[: text.index("Private-MAC")]):
        assert not [line for line in body if line in redact(shown)]
    assert redact(f"{text}rest = 1\n").endswith("\nrest = 1\n")


_REPEATED = [
    *("-----BEGIN RSA PRIVATE" + " KEY-----" + rest for rest in ("", "\nProc-Type: 4\n", "\n" * 50)),
    *("PuTTY-User-Key" + "-File-2: a" + rest for rest in ("", "\n")),
    *(
        "token:",
        "token=a1:",
        "PASS=1",
        "A_KEY=a-",
        "--pass-",
        "curl ",
        "curl -u a",
        "pwd=a;",
        "<password ",
        "-----BEGIN ",
    ),
    *(
        "login a password ",
        'auth=("a',
        "://a:b",
        "aws secret",
        "eyJaaaaaaaaa.",
        'password="((((',
        "A" * 64 + "\n",
        " \n",
    ),
]


@pytest.mark.parametrize("unit", _REPEATED)
def test_every_form_ends_on_what_only_begins_like_a_secret(unit: str) -> None:
    """An expression that tries all ways to divide a text stops the builder for good; the time limit tells."""
    text = unit * (20_000 // len(unit))
    assert redact_part(text).count("\n") == text.count("\n")


def test_what_matches_anything_is_bounded() -> None:
    """60 kB of repeated headers took a third of a second, since each was followed for 20,000 characters of any kind."""
    table = resources.files("orchestrator.context").joinpath("secrets.toml").read_text(encoding="utf-8")
    anything = re.compile(r"(?:(?<!\\)\.|\\S|\[\^(?:\\.|[^\]\\])+\]|\[\\s\\S\]|\))(?:([*+])|\{\d*,(\d*)\})")
    for row in tomllib.loads(table)["form"]:
        for unbounded, times in anything.findall(row["pattern"]):
            assert not unbounded, row
            assert int(times) <= 1000, row


SYMBOLS = [
    ("x9$kQ2(vL&p8", 'password = "{}"'),
    ("x9$kQ2<vL%p8", 'DB_PASSWORD="{}"'),
    ("x9kQ2)vL;p8{", "'password' => '{}',"),
    ("hunter2", "password: {}"),
    ("hunter22", 'db_pass: "{}"'),
    ("x9$kQ2vLp8", "+  password: {}\r"),
    ("x9kQ2vLp8", '{{\\"password\\": \\"{}\\"}}'),
    ("x9kQ2vLp8", '["deploy", "--token", "{}"]'),
    ("x9kQ2vLp8", "sshpass -p {} ssh host"),
    ("x9kQ2vLp8", "machine host login me password {}"),
    ("x9kQ2vLp8", 'requests.get(url, auth=("me", "{}"))'),
    ("x9kQ2vLp8", "- name: DB_PASSWORD\n  value: {}"),
    ("x9kQ2vLp8", "+  - name: API_TOKEN\r\n+    value: '{}'\r"),
    ("x9kQ2vLp8", "curl -s \\\n  -u me:{} https://example.org"),
]


@pytest.mark.parametrize(("secret", "line"), SYMBOLS)
def test_passwords_of_any_characters_are_hidden(secret: str, line: str) -> None:
    """A password with a bracket or a dollar in it was taken for code, a short one for a word, and shown."""
    result = redact(line.format(secret))
    assert secret not in result
    assert "[redacted:assigned-secret]" in result


HARMLESS = [
    'commit = "' + random_text(40, 1, "0123456789abcdef") + '"',
    "sha256:" + random_text(64, 2, "0123456789abcdef"),
    'integrity = "sha512-' + random_text(86, 3) + '=="',
    'id = "123e4567-e89b-12d3-a456-426614174000"',
    'token_uuid = "123e4567-e89b-12d3-a456-426614174000"',
    "password = getpass()",
    'password = os.environ["DB_PASSWORD"]',
    'password: str = Field(description="the password")',
    'token = "your-token-here"',
    'api_key = "<YOUR_API_KEY>"',
    "API_KEY=${API_KEY}",
    'secret_name = "projects/demo/secrets/name"',
    'PASSWORD_RESET_TEMPLATE = "registration/password_reset_form"',
    'csrf_token_header = "X-CSRF-Token"',
    "token = tokens[index].value",
    'raise ValueError("password must not be empty")',
    'passwordField: "userPasswordField"',
    "https://example.org:8443/path@v2",
    "git@github.com:owner/name.git",
    'tokenizer = "sentence-transformers/all-MiniLM-L6-v2"',
    'key = "primary_key_constraint_name"',
    'auth_token = "dummy-auth-token-0000"',
    "SECRET_KEY = secrets.token_hex(32)",
    'password = "changeme"',
    "password = get_password2()",
    "password: changeme",
    "pass = none",
    "--password PASSWORD",
    "--token <token1>",
    "--token $GITHUB_TOKEN",
    "<password>${env.PASSWORD1}</password>",
    "<token>string</token>",
    "curl -u user:password https://example.org",
    'curl -u "$USER:$PASS1" https://example.org',
    "docker run -u 1000:1000 image",
    'parser.add_argument("--password", "-p1")',
    "docker build --secret id=mysecret1,src=file1",
    "GDK_KEY_F1 = 0xffbe0100,",
    "CACHE_KEY=user:1:profile2",
    "FOREIGN_KEY=fk_user_id_2",
    "MAX_TOKENS=128000",
    "OLDPWD=C:/Users/x1y2z3",
    "token: bytes32, secret: uint256",
    "secret: aes-256-gcm",
    "f(password=password2, token=token1)",
    "const token = delete_tokens?.returning?.[0]",
    'sessionByToken = "nextAuthSessionByToken"',
    "test pass=15 fail=3",
    "- name: DB_PASSWORD\n  value: $(SECRET_1)",
    "- name: token\n  value: string",
    "PublicKeyToken=b77a5c561934e089",
    "token          = 1*tchar",
    "spwd: 3.0-3.12",
    "https://me:a%20secret@example.org",
    'hash_key = "sha256:' + random_text(64, 5, "0123456789abcdef") + '"',
]


@pytest.mark.parametrize("line", HARMLESS)
def test_what_only_looks_like_a_secret_stays(line: str) -> None:
    """A hash, a UUID, a placeholder or code was hidden, so that the agent saw broken source."""
    assert redact(line) == line


def test_precision_on_real_sources() -> None:
    """Redaction mangled ordinary code: at most one line in ten of what is hidden in this project's own sources and
    three installed packages may be ordinary. None of them holds a real secret, so hidden lines beside as many
    planted ones give the precision."""
    root = Path(__file__).parents[2]
    packages = Path(sysconfig.get_paths()["purelib"])
    directories = [
        root / "orchestrator",
        root / "agentpool",
        root / "api",
        *(packages / n for n in ("httpx", "jwt", "quart")),
    ]
    false = 0
    lines = 0
    for directory in directories:
        assert directory.is_dir()
        for path in directory.rglob("*.py"):
            text = path.read_text(encoding="utf-8", errors="replace")
            lines += text.count("\n")
            false += sum(a != b for a, b in zip(text.split("\n"), redact(text).split("\n"), strict=True))
    true = len(planted(1))
    assert lines > 20_000
    assert true / (true + false) >= 0.9


@pytest.mark.parametrize(
    ("path", "is_secret"),
    [
        (".env", True), ("app/.env.production", True), (".env.example", False), ("id_rsa", True), ("id_rsa.pub", False),
        ("certs/server.pem", True), ("deploy/terraform.tfstate", True), ("home/.aws/credentials", True), (".npmrc", True),  # noqa: E501
        ("config/master.key", True), ("src/keys.py", False), ("src/environment.ts", False), ("docs/credentials.md", False),  # noqa: E501
        ("k8s/secrets.yaml", True), ("kubeconfig", True), ("keyboard.key.md", False),
        ("deploy.template/.env", True), ("www.example.com/id_rsa", True), ("a/www.example.com.key", True),
        ("prod.example.key", True), (".env.example~", False), ("config.example.env", False), ("deploy.key.pub", False),
        ("example.env", False), (".env.local.example", False), ("id_rsa.bak", True), (".env~", True),
        (".env.bak", True),
        ("keys/id_ed25519.old~", True), ("credentials.json.orig", True), ("notes.md.bak", False), ("a.py~", False),
        (".streamlit/secrets.toml", True), ("app/.streamlit/secrets.toml", True), ("i18n/secrets.toml", False),
        ("ci/.m2/settings.xml", True), ("settings.xml", False), (".cargo/credentials.toml", True),
        (".cargo/credentials", True), (".cargo/config.toml", False), ("home/.docker/config.json", True),
        (".docker/Dockerfile", False), ("home/.kube/config", True), ("prod.kubeconfig", True), ("a/prod.tfvars", True),
        ("serviceAccountKey.json", True), ("x.kdbx", True), ("x.jks", True), (".htpasswd", True), (".pgpass", True),
        ("wp-config.php", True), ("wp-config.php.bak", True), ("wp-config-sample.php", False), (".my.cnf", True),
        ("rclone.conf", True), (".s3cfg", True), ("gradle.properties", False), ("terraform.tfstate", True),
        ("ID_RSA", True), ("env/a.py", False), ("key", False), ("src/.aws/x", True),
    ],
)  # fmt: skip
def test_stores_of_secrets_are_known_by_name(path: str, is_secret: bool) -> None:
    """A key file was given out whole because its content has no known form."""
    assert is_secret_file(path) is is_secret


def test_ordinary_paths_are_shown_as_they_are() -> None:
    """Paths with dates, hashes or words of security in them lost these."""
    paths = [
        "db/migrate/20240131120000_add_api_token_to_users.rb",
        f"assets/main.{random_text(20, 3, '0123456789abcdef')}.js",
        "docs/password: how to choose one 2024.md", "src/auth/secret_token_2_test.py", "a b/c\nd 1234567890123.txt",
    ]  # fmt: skip
    assert secrets_in(paths) == {}


def test_the_table_has_many_kinds() -> None:
    """A bad edit of the table dropped forms silently."""
    assert len(kinds()) >= 25
