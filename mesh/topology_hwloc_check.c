/* mesh/topology_hwloc_check.c -- what libhwloc takes for granted in XML. Its importer (2.9) follows
 * null pointers where sets are missing, and believes counts and indices; what it exports itself
 * passes. */
#include "mesh/topology_hwloc_internal.h"
#include <stdlib.h>
#include <string.h>

enum { MAX_INDEX = 1 << 16 }; /* of CPUs and NUMA nodes */
enum kind { OUTSIDE, NORMAL, MEMORY, IO, MISC };

struct checker {
    const struct tv_text *text;
    int is_version_1, has_root, root_has_nodesets;
    int depth, num_open;
    enum kind open[TV_TOPO_MAX_DEPTH + 1]; /* of the objects around */
    int is_object[TV_TOPO_MAX_DEPTH + 1];  /* of the elements around */
};

static enum kind kind_of(const char *type)
{
    static const struct {
        const char *type;
        enum kind kind;
    } kinds[] = {{"NUMANode", MEMORY}, {"MemCache", MEMORY}, {"Bridge", IO},
                 {"PCIDev", IO},       {"OSDev", IO},        {"Misc", MISC}};
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (strcmp(type, kinds[i].type) == 0)
            return kinds[i].kind;
    }
    return NORMAL;
}

static int is_bitmap(const char *text)
{
    return text != NULL && *text != '\0' && strspn(text, "0123456789abcdefx,") == strlen(text);
}

/* Sets come in pairs, and are numbers. */
static tv_status_t check_sets(const struct checker *checker, const char *type, int line,
                              const char **attributes, int needs_nodesets)
{
    static const char *const names[] = {"cpuset", "complete_cpuset", "nodeset", "complete_nodeset"};
    const int has_nodeset = tv_xml_attribute(attributes, "nodeset") != NULL ||
                            tv_xml_attribute(attributes, "complete_nodeset") != NULL;
    for (int i = 0; i < (needs_nodesets || has_nodeset ? 4 : 2); i++) {
        if (!is_bitmap(tv_xml_attribute(attributes, names[i])))
            return TV_ERR(TV_BAD_FILE, "%s:%d: a %s without %s", checker->text->path, line, type,
                          names[i]);
    }
    return TV_OK;
}

static tv_status_t check_nesting(const struct checker *checker, enum kind kind, const char *type,
                                 int line)
{
    const enum kind parent = checker->num_open > 0 ? checker->open[checker->num_open - 1] : OUTSIDE;
    const int is_machine = strcmp(type, "Machine") == 0;
    int is_good = !is_machine && (parent == NORMAL || kind == MISC || parent == kind);
    if (parent == MEMORY) /* version 1 has CPUs inside of NUMA nodes */
        is_good = !is_machine && (kind == MEMORY || kind == MISC || checker->is_version_1);
    if (parent == OUTSIDE)
        is_good = is_machine && !checker->has_root;
    if (!is_good)
        return TV_ERR(TV_BAD_FILE, "%s:%d: a %s where none can be", checker->text->path, line,
                      type);
    return TV_OK;
}

static tv_status_t check_object(struct checker *checker, const char **attributes, int line)
{
    const char *type = tv_xml_attribute(attributes, "type");
    const char *index = tv_xml_attribute(attributes, "os_index");
    if (type == NULL)
        return TV_ERR(TV_BAD_FILE, "%s:%d: an object without type", checker->text->path, line);
    const enum kind kind = kind_of(type);
    TV_TRY(check_nesting(checker, kind, type, line));
    if (kind == NORMAL || kind == MEMORY) {
        TV_TRY(
            check_sets(checker, type, line, attributes, !checker->is_version_1 || kind == MEMORY));
        if (kind == MEMORY && !checker->root_has_nodesets && checker->has_root)
            return TV_ERR(TV_BAD_FILE, "%s:%d: a %s in a Machine without nodeset",
                          checker->text->path, line, type);
        if (index != NULL && strtoul(index, NULL, 10) > MAX_INDEX)
            return TV_ERR(TV_BAD_FILE, "%s:%d: os_index %s is more than %d", checker->text->path,
                          line, index, MAX_INDEX);
    }
    if (!checker->has_root)
        checker->root_has_nodesets = tv_xml_attribute(attributes, "nodeset") != NULL;
    checker->has_root = 1;
    checker->open[checker->num_open++] = kind;
    return TV_OK;
}

/* Matrices: room for nbobjs^2 values must be in the file, two bytes each. */
static tv_status_t check_count(const struct checker *checker, const char *element,
                               const char **attributes, int line)
{
    const char *text = tv_xml_attribute(attributes, "nbobjs");
    const unsigned long num = text != NULL ? strtoul(text, NULL, 10) : 0;
    if (num > MAX_INDEX || 2 * num * num > checker->text->bytes)
        return TV_ERR(TV_BAD_FILE, "%s:%d: <%s> of %s objects is more than the file holds",
                      checker->text->path, line, element, text);
    return TV_OK;
}

static tv_status_t on_start(void *context, const char *element, const char **attributes, int line)
{
    struct checker *checker = context;
    checker->is_object[checker->depth++] = strcmp(element, "object") == 0;
    if (strcmp(element, "topology") == 0)
        checker->is_version_1 = tv_xml_attribute(attributes, "version") == NULL;
    if (strcmp(element, "object") == 0)
        return check_object(checker, attributes, line);
    return check_count(checker, element, attributes, line);
}

static void on_end(void *context, const char *element)
{
    (void)element;
    struct checker *checker = context;
    if (checker->is_object[--checker->depth])
        checker->num_open--;
}

tv_status_t tv_hwloc_check_xml(const struct tv_text *text)
{
    struct checker checker = {.text = text};
    TV_TRY(tv_xml_read(
        text, &(struct tv_xml_walk){.context = &checker, .start = on_start, .end = on_end}));
    if (!checker.has_root)
        return TV_ERR(TV_BAD_FILE, "%s: a <topology> without objects", text->path);
    return TV_OK;
}
