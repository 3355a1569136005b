#ifndef TH_SCHEMA_NAMES_H
#define TH_SCHEMA_NAMES_H
/* Name and label formats. Each returns NULL when valid, else upstream's message (static). */
const char *th_name_dns1123_label(const char *s);
const char *th_name_dns1123_subdomain(const char *s);
const char *th_name_dns1035_label(const char *s);
const char *th_name_qualified(const char *s);  /* label and annotation keys */
const char *th_name_label_value(const char *s);
const char *th_name_port(const char *s);       /* IANA service name */
const char *th_name_env(const char *s);
const char *th_name_config_key(const char *s); /* ConfigMap and Secret data keys */
const char *th_name_path_segment(const char *s);
const char *th_name_ip(const char *s);
const char *th_name_cidr(const char *s);
#endif
