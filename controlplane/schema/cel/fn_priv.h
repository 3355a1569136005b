#ifndef TH_CEL_FN_PRIV_H
#define TH_CEL_FN_PRIV_H
/* The functions' C names, file by file: functions.c lists them with their signatures. */
#include "controlplane/schema/cel/cel_priv.h"

#define CEL_FN(name) struct cel_val name(struct cel_eval *e, struct cel_val *args, size_t n)
#define CEL_FN_DEF(name)                                                                           \
    struct cel_val name(struct cel_eval *e TH_UNUSED, struct cel_val *args TH_UNUSED,              \
                        size_t n TH_UNUSED)

/* fn_std.c */
CEL_FN(cel_fn_add);
CEL_FN(cel_fn_sub);
CEL_FN(cel_fn_mul);
CEL_FN(cel_fn_div);
CEL_FN(cel_fn_mod);
CEL_FN(cel_fn_neg);
CEL_FN(cel_fn_not);
CEL_FN(cel_fn_less);
CEL_FN(cel_fn_less_equal);
CEL_FN(cel_fn_greater);
CEL_FN(cel_fn_greater_equal);
CEL_FN(cel_fn_in);
CEL_FN(cel_fn_index);
CEL_FN(cel_fn_opt_index);
CEL_FN(cel_fn_size);
CEL_FN(cel_fn_to_int);
CEL_FN(cel_fn_to_uint);
CEL_FN(cel_fn_to_double);
CEL_FN(cel_fn_to_string);
CEL_FN(cel_fn_to_bytes);
CEL_FN(cel_fn_to_bool);
CEL_FN(cel_fn_to_timestamp);
CEL_FN(cel_fn_to_duration);
CEL_FN(cel_fn_to_dyn);
CEL_FN(cel_fn_type);
CEL_FN(cel_fn_never); /* handled by the evaluator itself */
/* fn_time.c */
CEL_FN(cel_fn_full_year);
CEL_FN(cel_fn_month);
CEL_FN(cel_fn_day_of_year);
CEL_FN(cel_fn_day_of_month);
CEL_FN(cel_fn_date);
CEL_FN(cel_fn_day_of_week);
CEL_FN(cel_fn_hours);
CEL_FN(cel_fn_minutes);
CEL_FN(cel_fn_seconds);
CEL_FN(cel_fn_millis);
/* fn_string.c */
CEL_FN(cel_fn_contains);
CEL_FN(cel_fn_starts_with);
CEL_FN(cel_fn_ends_with);
CEL_FN(cel_fn_matches);
CEL_FN(cel_fn_char_at);
CEL_FN(cel_fn_index_of);
CEL_FN(cel_fn_last_index_of);
CEL_FN(cel_fn_join);
CEL_FN(cel_fn_lower);
CEL_FN(cel_fn_upper);
CEL_FN(cel_fn_replace);
CEL_FN(cel_fn_split);
CEL_FN(cel_fn_substring);
CEL_FN(cel_fn_trim);
CEL_FN(cel_fn_quote);
CEL_FN(cel_fn_format);
CEL_FN(cel_fn_find);
CEL_FN(cel_fn_find_all);
/* fn_list.c */
CEL_FN(cel_fn_is_sorted);
CEL_FN(cel_fn_sum);
CEL_FN(cel_fn_min);
CEL_FN(cel_fn_max);
CEL_FN(cel_fn_list_index_of);
CEL_FN(cel_fn_list_last_index_of);
CEL_FN(cel_fn_slice);
CEL_FN(cel_fn_flatten);
CEL_FN(cel_fn_range);
CEL_FN(cel_fn_distinct);
CEL_FN(cel_fn_reverse);
CEL_FN(cel_fn_sort);
CEL_FN(cel_fn_first);
CEL_FN(cel_fn_last);
CEL_FN(cel_fn_sets_contains);
CEL_FN(cel_fn_sets_equivalent);
CEL_FN(cel_fn_sets_intersects);
CEL_FN(cel_fn_optional_of);
CEL_FN(cel_fn_optional_non_zero);
CEL_FN(cel_fn_optional_none);
CEL_FN(cel_fn_has_value);
CEL_FN(cel_fn_value);
CEL_FN(cel_fn_or);
CEL_FN(cel_fn_or_value);
CEL_FN(cel_fn_unwrap);
/* fn_quantity.c: quantities and versions */
CEL_FN(cel_fn_quantity);
CEL_FN(cel_fn_is_quantity);
CEL_FN(cel_fn_q_sign);
CEL_FN(cel_fn_q_add);
CEL_FN(cel_fn_q_sub);
CEL_FN(cel_fn_compare_to);
CEL_FN(cel_fn_is_less);
CEL_FN(cel_fn_is_greater);
CEL_FN(cel_fn_q_as_int);
CEL_FN(cel_fn_q_is_int);
CEL_FN(cel_fn_q_as_float);
CEL_FN(cel_fn_semver);
CEL_FN(cel_fn_is_semver);
CEL_FN(cel_fn_sv_major);
CEL_FN(cel_fn_sv_minor);
CEL_FN(cel_fn_sv_patch);
int cel_semver_cmp(const struct cel_semver *a, const struct cel_semver *b);
/* fn_net.c: addresses, URLs, formats */
CEL_FN(cel_fn_ip);
CEL_FN(cel_fn_is_ip);
CEL_FN(cel_fn_ip_is_canonical);
CEL_FN(cel_fn_ip_family);
CEL_FN(cel_fn_ip_unspecified);
CEL_FN(cel_fn_ip_loopback);
CEL_FN(cel_fn_ip_ll_multicast);
CEL_FN(cel_fn_ip_ll_unicast);
CEL_FN(cel_fn_ip_global);
CEL_FN(cel_fn_net_string);
CEL_FN(cel_fn_cidr);
CEL_FN(cel_fn_is_cidr);
CEL_FN(cel_fn_contains_ip);
CEL_FN(cel_fn_contains_cidr);
CEL_FN(cel_fn_cidr_ip);
CEL_FN(cel_fn_cidr_masked);
CEL_FN(cel_fn_cidr_prefix);
CEL_FN(cel_fn_url);
CEL_FN(cel_fn_is_url);
CEL_FN(cel_fn_url_scheme);
CEL_FN(cel_fn_url_host);
CEL_FN(cel_fn_url_hostname);
CEL_FN(cel_fn_url_port);
CEL_FN(cel_fn_url_path);
CEL_FN(cel_fn_url_query);
CEL_FN(cel_fn_format_named);
CEL_FN(cel_fn_format_validate);
/* Constructors of formats take no arguments. */
#define CEL_FORMATS(X)                                                                             \
    X(dns1123Label)                                                                                \
    X(dns1123Subdomain)                                                                            \
    X(dns1035Label)                                                                                \
    X(qualifiedName)                                                                               \
    X(dns1123LabelPrefix)                                                                          \
    X(dns1123SubdomainPrefix)                                                                      \
    X(dns1035LabelPrefix)                                                                          \
    X(labelValue)                                                                                  \
    X(uri)                                                                                         \
    X(uuid)                                                                                        \
    X(byte)                                                                                        \
    X(date)                                                                                        \
    X(datetime)
#define CEL_FORMAT_DECL(f) CEL_FN(cel_fn_format_##f);
CEL_FORMATS(CEL_FORMAT_DECL)
/* fn_authz.c */
CEL_FN(cel_fn_authz_path);
CEL_FN(cel_fn_authz_group);
CEL_FN(cel_fn_authz_account);
CEL_FN(cel_fn_authz_resource);
CEL_FN(cel_fn_authz_sub);
CEL_FN(cel_fn_authz_ns);
CEL_FN(cel_fn_authz_name);
CEL_FN(cel_fn_authz_fields);
CEL_FN(cel_fn_authz_labels);
CEL_FN(cel_fn_authz_check);
CEL_FN(cel_fn_authz_errored);
CEL_FN(cel_fn_authz_error);
CEL_FN(cel_fn_authz_allowed);
CEL_FN(cel_fn_authz_reason);
CEL_FN(cel_fn_escape_key);
#endif
