#ifndef TH_SCHEMA_NAMES_H
#define TH_SCHEMA_NAMES_H
/* Name and label formats. Each returns NULL when valid, else upstream's message (static). A value
 * can break several rules at once; th_name_messages gives all of them, the plain functions the
 * first. */
#include <stddef.h>

const char *th_name_dns1123_label(const char *s);
const char *th_name_dns1123_subdomain(const char *s);
const char *th_name_dns1035_label(const char *s);
const char *th_name_qualified(const char *s);  /* label and annotation keys */
const char *th_name_label_value(const char *s);
const char *th_name_port(const char *s);       /* IANA service name */
const char *th_name_env(const char *s);        /* relaxed: printable ASCII but '=' (GA in 1.34) */
const char *th_name_config_key(const char *s); /* ConfigMap and Secret data keys */
const char *th_name_path_segment(const char *s);
const char *th_name_ip(const char *s);
const char *th_name_cidr(const char *s);

enum th_name_format {
    TH_NAME_DNS1123_LABEL,
    TH_NAME_DNS1123_SUBDOMAIN,
    TH_NAME_DNS1123_SUBDOMAIN_UNDERSCORE, /* Pod setHostnameAsFQDN, DNS searches */
    TH_NAME_DNS1123_WILDCARD,             /* "*.example.com": Ingress hosts */
    TH_NAME_DNS1035_LABEL,
    TH_NAME_QUALIFIED,
    TH_NAME_LABEL_VALUE,
    TH_NAME_PORT,
    TH_NAME_ENV,
    TH_NAME_ENV_STRICT,
    TH_NAME_C_IDENTIFIER,
    TH_NAME_CONFIG_KEY,
    TH_NAME_HTTP_HEADER,
    TH_NAME_PERCENT,
    TH_NAME_PATH_SEGMENT,
    TH_NAME_PATH_SEGMENT_PREFIX,
    TH_NAME_IP,
    TH_NAME_CIDR
};
#define TH_NAME_MSGS 5 /* the most that any format can give */
/* All messages about s, in upstream's order; returns how many. NULL is taken as "". */
size_t th_name_messages(enum th_name_format f, const char *s, const char *ret[TH_NAME_MSGS]);
#endif
