"""The signing keys: made at first start, kept private, rotated without invalidating live tokens."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

import msgspec
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey, generate_private_key
from filelock import FileLock
from jwt.algorithms import RSAAlgorithm

from orchestrator.clock import Clock, SystemClock
from orchestrator.errors import StorageReadFailed, StorageWriteFailed
from orchestrator.privacy import make_private_directory, replace_private

#: Bits of a new RSA key; NIST SP 800-131A allows 2048 beyond 2030 for signatures.
KEY_BITS = 2048
#: Seconds between two looks at the ring for an unknown key id, so that bad tokens cannot make the disk busy.
RELOAD_INTERVAL_S = 1.0
#: Seconds for which a retired key verifies: longer than tokens live, and longer by what it takes a sidecar to see that
#: the ring changed. The longest is an agent's: 30 days (a profile's most ``timeout_seconds``) and 5 minutes.
OVERLAP_S = 31 * 86400.0
_KID = re.compile(r"[0-9a-f]{16}")


class KeyRing:
    """All keys of one storage directory: one private key that signs, public ones that verify.

    The directory ``keys`` (0700) holds ``<kid>.pem`` (the private keys, 0600) and ``ring.json``, which names the
    current key and until when each retired one still verifies.

    Args:
        directory: the ``keys`` directory.
        clock: tells when a retired key stops to count.
    """

    def __init__(self, directory: Path, *, clock: Clock | None = None) -> None:
        self._directory = directory
        self._clock = clock or SystemClock()
        self._signer: tuple[str, RSAPrivateKey] | None = None
        self._public: dict[str, RSAPublicKey] = {}
        self._retired: dict[str, float] = {}
        self._outlasting = 0.0
        self._read_at = 0.0
        self._version = (0, 0)

    @classmethod
    def open(cls, directory: Path, *, clock: Clock | None = None) -> KeyRing:
        """Load the keys, making the first one when there is none.

        Raises StorageReadFailed when they are there but cannot be read, StorageWriteFailed when none can be made.
        """
        ring = cls(directory, clock=clock)
        try:
            make_private_directory(directory)
            # Two programs may start on a fresh directory at once (`serve` and `token`): only one makes the key.
            with FileLock(directory / ".lock", mode=0o600, timeout=30):
                if not (directory / "ring.json").exists():
                    ring._add_key()
                ring._load()
        except OSError as error:
            raise StorageWriteFailed(
                f"the keys in {directory} cannot be used: {error.strerror or error}; check its owner and mode"
            ) from error
        return ring

    @property
    def kid(self) -> str:
        """The id of the key that signs now."""
        return self.signer[0]

    @property
    def signing_key(self) -> RSAPrivateKey:
        """The key that signs now."""
        return self.signer[1]

    @property
    def signer(self) -> tuple[str, RSAPrivateKey]:
        """The key that signs now with its id: of one moment, whoever rotates meanwhile."""
        if self._signer is None:
            raise StorageReadFailed("the signing key is not loaded")
        return self._signer

    def public_key(self, kid: str) -> RSAPublicKey | None:
        """The key that verifies tokens of ``kid``, or None. Only known ids: nothing of a token names a file."""
        key = self._public.get(kid)
        until = self._retired.get(kid)
        if key is None or (until is not None and until <= self._clock.now()):
            return None
        return key

    def jwks(self) -> dict[str, Any]:
        """The public halves as a JSON Web Key Set (RFC 7517)."""
        keys = []
        for kid in self._public:
            key = self.public_key(kid)
            if key is not None:
                fields = json.loads(RSAAlgorithm.to_jwk(key))
                keys.append(
                    {"kty": "RSA", "use": "sig", "alg": "RS256", "kid": kid, "n": fields["n"], "e": fields["e"]}
                )
        return {"keys": keys}

    def rotate(self, *, overlap_s: float = OVERLAP_S) -> float:
        """Make a new signing key; until when (seconds since the epoch) what the old one signed is good.

        That is ``overlap_s`` more seconds, or longer where ``note_expiry`` says so.
        """
        with FileLock(self._directory / ".lock", mode=0o600, timeout=30):
            self._load()
            now = self._clock.now()
            until = max(now + overlap_s, self._outlasting)
            self._retired[self.kid] = until
            for kid in [kid for kid, until in self._retired.items() if until <= now]:
                del self._retired[kid]
                self._public.pop(kid, None)
                (self._directory / f"{kid}.pem").unlink(missing_ok=True)
            self._add_key()
            self._load()
        return until

    def note_expiry(self, kid: str, expires_at: float) -> None:
        """Remember that ``kid`` signed a token which outlives ``OVERLAP_S``. Raises OSError."""
        with FileLock(self._directory / ".lock", mode=0o600, timeout=30):
            self._load()
            if kid in self._retired:  # another process rotated meanwhile
                self._retired[kid] = max(self._retired[kid], expires_at)
            elif kid == self.kid:
                self._outlasting = max(self._outlasting, expires_at)
            self._write_ring(self.kid, self._outlasting)
            self._load()

    def follow(self) -> None:
        """Read the ring again if another process changed it. Raises as ``refresh``."""
        if self._version != self._version_on_disk():
            self._load()

    def refresh(self) -> None:
        """Read the ring again, in case another process rotated it; at most once in RELOAD_INTERVAL_S seconds.

        Raises StorageReadFailed; the keys that were loaded before then stay in force.
        """
        now = self._clock.monotonic()
        if now - self._read_at >= RELOAD_INTERVAL_S:
            self._load()

    def _add_key(self) -> None:
        private = generate_private_key(public_exponent=65537, key_size=KEY_BITS)
        kid = _kid_of(private.public_key())
        pem = private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        replace_private(self._directory / f"{kid}.pem", pem)
        # The ring is written last: until then the new key counts for nothing.
        self._write_ring(kid, 0.0)

    def _write_ring(self, current: str, outlasting: float) -> None:
        ring = _Ring(current=current, retired=self._retired, outlasting=outlasting)
        replace_private(self._directory / "ring.json", msgspec.json.encode(ring))

    def _version_on_disk(self) -> tuple[int, int]:
        """Differs whenever the ring was written: it is replaced, never changed. (0, 0) where it cannot be seen."""
        try:
            status = (self._directory / "ring.json").stat()
        except OSError:
            return (0, 0)
        return (status.st_ino, status.st_mtime_ns)

    def _load(self) -> None:
        self._read_at = self._clock.monotonic()
        # Looked at first: a ring that is replaced meanwhile is read again.
        version = self._version_on_disk()
        try:
            ring = msgspec.json.decode((self._directory / "ring.json").read_bytes(), type=_Ring)
            names = [ring.current, *ring.retired]
            if not all(_KID.fullmatch(name) for name in names):
                raise ValueError("a key id has an odd form")
            private = {name: self._read_key(name) for name in names}
        except (OSError, ValueError, TypeError) as error:
            raise StorageReadFailed(
                f"the keys in {self._directory} cannot be read: {error}; restore them from a backup, "
                "or remove the directory to make new ones (which ends all tokens)"
            ) from error
        self._public = {name: key.public_key() for name, key in private.items()}
        self._retired = dict(ring.retired)
        self._outlasting = ring.outlasting
        self._signer = (ring.current, private[ring.current])
        self._version = version

    def _read_key(self, kid: str) -> RSAPrivateKey:
        path = self._directory / f"{kid}.pem"
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            key = serialization.load_pem_private_key(file.read(65536), password=None)
        if not isinstance(key, RSAPrivateKey) or _kid_of(key.public_key()) != kid:
            raise ValueError(f"{path.name} is not the key that its name says")
        return key


class _Ring(msgspec.Struct, frozen=True):
    """``outlasting``: when the last token of the current key expires, of those that outlive ``OVERLAP_S``."""

    current: str
    retired: dict[str, float] = {}
    outlasting: float = 0.0


def _kid_of(key: RSAPublicKey) -> str:
    """The first 16 hex digits of the SHA-256 of the key's DER form."""
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()[:16]
