/* The chain of admission plugins.
 *
 * Mutating calls come before defaults of a kind's own prepare hooks, validating ones after
 * validation, both in plugins.def's order, as upstream. --disable-admission leaves plugins out by
 * upstream's names.
 */
#include "controlplane/api/admission/admission.h"

#define TH_ADMISSION(id) extern const struct th_admission_plugin th_admission_##id;
#include "controlplane/api/admission/plugins.def"
#undef TH_ADMISSION

static const struct th_admission_plugin *const plugins[] = {
#define TH_ADMISSION(id) &th_admission_##id,
#include "controlplane/api/admission/plugins.def"
#undef TH_ADMISSION
};

static bool enabled(const struct th_call *c, const struct th_admission_plugin *p)
{
    return !p->name || !th_strv_has(&c->api->disabled_admission, p->name);
}

bool th_admission_creates(const struct th_call *c, const char *group, const char *plural,
                          const struct th_json *old)
{
    return !old && th_admission_writes(c, group, plural);
}

bool th_admission_writes(const struct th_call *c, const char *group, const char *plural)
{
    return !c->sub && th_streq(c->res->group, group) && th_streq(c->res->plural, plural);
}

int th_admit_mutate(struct th_call *c, struct th_json *obj, const struct th_json *old,
                    struct th_err *err)
{
    for (size_t i = 0; i < TH_ARRAY_LEN(plugins); i++) {
        if (plugins[i]->mutate && enabled(c, plugins[i])) {
            TH_TRY(plugins[i]->mutate(c, obj, old, err));
        }
    }
    return 0;
}

int th_admit_validate(struct th_call *c, const struct th_json *obj, const struct th_json *old,
                      struct th_err *err)
{
    for (size_t i = 0; i < TH_ARRAY_LEN(plugins); i++) {
        if (plugins[i]->validate && enabled(c, plugins[i])) {
            TH_TRY(plugins[i]->validate(c, obj, old, err));
        }
    }
    return 0;
}

int th_admit_delete(struct th_call *c, const char *name, struct th_err *err)
{
    for (size_t i = 0; i < TH_ARRAY_LEN(plugins); i++) {
        if (plugins[i]->on_delete && enabled(c, plugins[i])) {
            TH_TRY(plugins[i]->on_delete(c, name, err));
        }
    }
    return 0;
}
