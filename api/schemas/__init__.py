"""The typed forms of requests and answers; the OpenAPI document comes from them."""
