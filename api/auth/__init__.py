"""Who a caller is, what it may do and how often."""

from api.auth.authority import Authority
from api.auth.keys import KeyRing
from api.auth.limits import RateLimiter
from api.auth.offline import mint_offline
from api.auth.principal import Principal

__all__ = ["Authority", "KeyRing", "Principal", "RateLimiter", "mint_offline"]
