#pragma once
// OpenSSL, and functions in place of those of its macros that Swift can't import. No logic of ours.
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

static inline int cache_ssl_ctx_set_min_version(SSL_CTX *context, int version) {
  return SSL_CTX_set_min_proto_version(context, version);
}
static inline long cache_ssl_ctx_set_mode(SSL_CTX *context, long mode) { return SSL_CTX_set_mode(context, mode); }
static inline long cache_ssl_ctx_set_session_cache_mode(SSL_CTX *context, long mode) {
  return SSL_CTX_set_session_cache_mode(context, mode);
}
static inline void cache_ssl_ctx_set_read_ahead(SSL_CTX *context, int yes) { SSL_CTX_set_read_ahead(context, yes); }
static inline long cache_ssl_set_server_name(SSL *session, const char *name) {
  return SSL_set_tlsext_host_name(session, name);
}
// Options that are 64-bit macros.
#define CACHE_SSL_OPTION(name) static inline uint64_t cache_ssl_##name(void) { return name; }
CACHE_SSL_OPTION(SSL_OP_NO_RENEGOTIATION)
CACHE_SSL_OPTION(SSL_OP_ENABLE_KTLS)
CACHE_SSL_OPTION(SSL_OP_CIPHER_SERVER_PREFERENCE)
CACHE_SSL_OPTION(SSL_OP_IGNORE_UNEXPECTED_EOF)
#undef CACHE_SSL_OPTION
