"""Planted secrets, made at run time so that none stands in the repository."""

from __future__ import annotations

import random
import string

LETTERS = string.ascii_letters + string.digits


def random_text(count: int, seed: int, alphabet: str = LETTERS) -> str:
    """The same ``count`` characters for the same ``seed``."""
    return "".join(random.Random(seed).choices(alphabet, k=count))


def planted(seed: int) -> dict[str, tuple[str, str]]:
    """By kind a secret of that form (made here, so that none stands in the repository) and a line that holds it."""
    hexadecimal = string.digits + "abcdef"
    made = {
        "aws-access-key": "AK" + "IA" + random_text(16, seed, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"),
        "aws-secret-key": random_text(40, seed),
        "github-token": "gh" + "p_" + random_text(36, seed),
        "github-fine-token": "github" + "_pat_" + random_text(82, seed),
        "gitlab-token": "gl" + "pat-" + random_text(20, seed),
        "slack-token": "xo" + "xb-" + random_text(12, seed, string.digits) + "-" + random_text(24, seed + 1),
        "slack-webhook": "https://hooks." + "slack.com/services/T" + random_text(8, seed) + "/B" + random_text(8, seed) + "/" + random_text(24, seed),  # noqa: E501
        "discord-webhook": "https://discord.com/" + "api/webhooks/" + random_text(18, seed, string.digits) + "/" + random_text(68, seed),  # noqa: E501
        "stripe-key": "sk" + "_live_" + random_text(24, seed),
        "google-api-key": "AI" + "za" + random_text(35, seed),
        "google-oauth-secret": "GOC" + "SPX-" + random_text(28, seed),
        "openai-key": "sk" + "-proj-" + random_text(48, seed),
        "anthropic-key": "sk" + "-ant-api03-" + random_text(60, seed),
        "huggingface-token": "h" + "f_" + random_text(34, seed),
        "npm-token": "np" + "m_" + random_text(36, seed),
        "pypi-token": "py" + "pi-AgEI" + random_text(70, seed),
        "sendgrid-key": "S" + "G." + random_text(22, seed) + "." + random_text(43, seed + 1),
        "twilio-key": "S" + "K" + random_text(32, seed, hexadecimal),
        "mailgun-key": "ke" + "y-" + random_text(32, seed, hexadecimal),
        "mailchimp-key": random_text(32, seed, hexadecimal) + "-" + "us12",
        "digitalocean-token": "dop" + "_v1_" + random_text(64, seed, hexadecimal),
        "shopify-token": "shp" + "at_" + random_text(32, seed, hexadecimal),
        "telegram-token": random_text(9, seed, "123456789") + ":A" + "A" + random_text(33, seed),
        "vault-token": "hv" + "s." + random_text(40, seed),
        "databricks-token": "da" + "pi" + random_text(32, seed, hexadecimal),
        "docker-token": "dckr" + "_pat_" + random_text(27, seed),
        "linear-key": "lin" + "_api_" + random_text(40, seed),
        "newrelic-key": "NR" + "AK-" + random_text(27, seed, string.ascii_uppercase + string.digits),
        "grafana-token": "gl" + "sa_" + random_text(32, seed) + "_" + random_text(8, seed, hexadecimal),
        "azure-key": random_text(86, seed) + "==",
        "jwt": "ey" + "J" + random_text(30, seed) + ".ey" + "J" + random_text(60, seed) + "." + random_text(43, seed + 1),  # noqa: E501
        "url-password": "p" + random_text(14, seed),
        "bearer": random_text(40, seed),
        "password": random_text(16, seed) + "!7",
        "env-password": random_text(20, seed),
        "api-key": random_text(32, seed),
        "env-key": random_text(24, seed),
        "ini-password": random_text(14, seed),
        "short-password": random_text(8, seed) + "7",
        "quoted-pass": random_text(11, seed) + "4",
        "connection-string": random_text(11, seed) + "$9",
        "xml-password": random_text(12, seed) + "3",
        "xml-attribute": random_text(12, seed) + "3",
        "api-header": random_text(24, seed),
        "option": random_text(10, seed) + "5!",
        "curl-user": random_text(12, seed) + "2",
        "sql-password": random_text(12, seed) + "6",
        "query-token": random_text(20, seed) + "8",
    }  # fmt: skip
    lines = {
        "aws-secret-key": 'aws_secret_access_key = "{}"',
        "azure-key": "DefaultEndpointsProtocol=https;AccountKey={};EndpointSuffix=core",
        "url-password": "DATABASE = 'postgres://app:{}@db.internal:5432/app'",
        "bearer": 'headers = {{"Authorization": "Bearer {}"}}',
        "password": 'password = "{}"',
        "env-password": "DB_PASSWORD={}",
        "api-key": "  apiKey: '{}',",
        "env-key": "SECRET_KEY={}",
        "ini-password": "db_password: {}",
        "short-password": "mail.password={}",
        "quoted-pass": "pass = '{}'",
        "connection-string": "Server=db;User Id=app;Password={};Encrypt=true",
        "xml-password": "<password>{}</password>",
        "xml-attribute": '<add key="SmtpPassword" value="{}" />',
        "api-header": "X-API-Key: {}",
        "option": "deploy --password {} --quiet",
        "curl-user": "curl -u deploy:{} https://example.org/upload",
        "sql-password": "CREATE USER app IDENTIFIED BY '{}';",
        "query-token": "https://example.org/feed?access_token={}&page=2",
    }
    return {kind: (secret, lines.get(kind, 'value = "{}"').format(secret)) for kind, secret in made.items()}


def key_lines(name: str = "RSA ") -> list[str]:
    """The lines of a private key with its marks; made here, as all of these are."""
    alphabet = LETTERS + "+/"
    body = [*(random_text(64, n, alphabet) for n in range(12)), random_text(20, 12, alphabet) + "=="]
    return [f"-----BEGIN {name}PRIVATE" + " KEY-----", *body, f"-----END {name}PRIVATE" + " KEY-----"]
