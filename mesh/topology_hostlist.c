/* mesh/topology_hostlist.c -- lists of host names as Slurm writes them: "n[08-10,12],gpu7". */
#include "mesh/topology_internal.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct list {
    const char *path;
    int line;
    tv_status_t (*take)(void *context, const char *name);
    void *context;
};

static tv_status_t refuse(const struct list *list, const char *text, size_t length)
{
    return TV_ERR(TV_BAD_FILE, "%s:%d: \"%.*s\" is no list of names", list->path, list->line,
                  (int)(length < 80 ? length : 80), text);
}

static tv_status_t append(const struct list *list, char name[TV_TOPO_NAME], const char *text,
                          size_t length)
{
    const size_t before = strlen(name);
    if (before + length >= TV_TOPO_NAME)
        return TV_ERR(TV_BAD_FILE, "%s:%d: %s%.*s: a name of more than %d characters", list->path,
                      list->line, name, (int)(length < 80 ? length : 80), text, TV_TOPO_NAME - 1);
    memcpy(name + before, text, length);
    name[before + length] = '\0';
    return TV_OK;
}

static tv_status_t expand(const struct list *list, const char *prefix, const char *text,
                          size_t length);

/* All numbers from `low` to `high`, as wide as low is written, each followed by the rest. */
static tv_status_t expand_range(const struct list *list, const char *prefix, const char *low,
                                const char *high, const char *rest, size_t rest_length)
{
    const int width = (int)strspn(low, "0123456789");
    const long first = strtol(low, NULL, 10), last = strtol(high, NULL, 10);
    if (last - first >= TV_TOPO_MAX_NODES)
        return TV_ERR(TV_BAD_FILE, "%s:%d: %ld to %ld: more than %d names", list->path, list->line,
                      first, last, TV_TOPO_MAX_NODES);
    for (long number = first; number <= last; number++) {
        char name[TV_TOPO_NAME], digits[32];
        snprintf(name, sizeof(name), "%s", prefix);
        snprintf(digits, sizeof(digits), "%0*ld", width, number);
        TV_TRY(append(list, name, digits, strlen(digits)));
        TV_TRY(expand(list, name, rest, rest_length));
    }
    return TV_OK;
}

/* One name; the first bracket is expanded here, the others below. Every level adds to the name,
 * whose length bounds the depth. */
static tv_status_t expand(const struct list *list, const char *prefix, const char *text,
                          size_t length)
{
    char name[TV_TOPO_NAME];
    snprintf(name, sizeof(name), "%s", prefix);
    const char *open = memchr(text, '[', length);
    if (open == NULL) {
        if (memchr(text, ']', length) != NULL)
            return refuse(list, text, length);
        TV_TRY(append(list, name, text, length));
        return name[0] != '\0' ? list->take(list->context, name) : refuse(list, text, length);
    }
    const char *close = memchr(open, ']', length - (size_t)(open - text));
    if (close == NULL)
        return refuse(list, text, length);
    TV_TRY(append(list, name, text, (size_t)(open - text)));
    const size_t rest_length = length - (size_t)(close + 1 - text);
    for (const char *low = open + 1;;) {
        const size_t low_digits = strspn(low, "0123456789");
        const char *high = low[low_digits] == '-' ? low + low_digits + 1 : low;
        const size_t high_digits = strspn(high, "0123456789");
        const char *after = high + high_digits;
        if (low_digits == 0 || high_digits == 0 || low_digits > 9 || high_digits > 9 ||
            strtol(low, NULL, 10) > strtol(high, NULL, 10) || (*after != ',' && after != close))
            return refuse(list, text, length);
        TV_TRY(expand_range(list, name, low, high, close + 1, rest_length));
        if (after == close)
            return TV_OK;
        low = after + 1;
    }
}

tv_status_t tv_hostlist_each(const char *text, const char *path, int line,
                             tv_status_t (*take)(void *context, const char *name), void *context)
{
    const struct list list = {.path = path, .line = line, .take = take, .context = context};
    for (;;) {
        size_t length = 0;
        for (int is_inside = 0; text[length] != '\0' && (text[length] != ',' || is_inside);
             length++)
            is_inside = text[length] == '[' || (is_inside && text[length] != ']');
        TV_TRY(expand(&list, "", text, length));
        if (text[length] == '\0')
            return TV_OK;
        text += length + 1;
    }
}
