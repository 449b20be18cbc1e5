/* mesh/topology_file.c -- files that describe one node: read whole, and told apart by what they
 * contain, never by their names. */
#include "mesh/topology_internal.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static tv_status_t read_bytes(FILE *file, struct tv_text *text)
{
    size_t room = 1 << 12, got;
    do {
        room *= 2;
        char *grown = realloc(text->data, room + 1);
        if (grown == NULL)
            return TV_ERR(TV_NO_MEMORY, "%s: %zu bytes", text->path, room);
        text->data = grown;
        got = fread(grown + text->bytes, 1, room - text->bytes, file);
        text->bytes += got;
    } while (text->bytes == room && room < TV_TOPO_MAX_FILE);
    if (ferror(file))
        return TV_ERR(TV_BAD_FILE, "%s: %s", text->path, strerror(errno));
    if (!feof(file))
        return TV_ERR(TV_BAD_FILE, "%s: more than %d bytes", text->path, TV_TOPO_MAX_FILE);
    text->data[text->bytes] = '\0';
    return TV_OK;
}

tv_status_t tv_text_read(const char *path, struct tv_text *text_out)
{
    FILE *file = fopen(path, "r");
    if (file == NULL)
        return TV_ERR(TV_BAD_FILE, "%s: %s", path, strerror(errno));
    struct tv_text text = {.path = path};
    const tv_status_t status = read_bytes(file, &text);
    fclose(file);
    if (status != TV_OK) {
        free(text.data);
        return status;
    }
    *text_out = text;
    return TV_OK;
}

struct root {
    char element[TV_TOPO_NAME]; /* "" before the first element */
    int major;                  /* of its version; hwloc 1 writes none */
    int line;
};

static tv_status_t on_element(void *context, const char *element, const char **attributes, int line)
{
    struct root *root = context;
    if (root->element[0] == '\0') {
        const char *version = tv_xml_attribute(attributes, "version");
        snprintf(root->element, sizeof(root->element), "%s", element);
        root->line = line;
        root->major = version != NULL ? atoi(version) : 1;
    }
    return TV_OK;
}

static tv_status_t parse_xml(const struct tv_text *text, struct tv_node_read *node_out)
{
    struct root root = {0};
    TV_TRY(tv_xml_read(text, &(struct tv_xml_walk){.context = &root, .start = on_element}));
    if (strcmp(root.element, "system") == 0)
        return tv_topology_parse_nccl(text, node_out);
    if (strcmp(root.element, "topology") != 0)
        return TV_ERR(TV_BAD_FILE,
                      "%s:%d: XML of a <%s>; a node is a <topology> of hwloc or a <system> of NCCL",
                      text->path, root.line, root.element);
    if (root.major > 2)
        return TV_ERR(TV_BAD_FILE,
                      "%s: hwloc XML of format %d, which only hwloc %d reads; export it again as "
                      "format 2: lstopo --export-xml-flags v2 FILE.xml",
                      text->path, root.major, root.major);
    return tv_topology_parse_hwloc(text, node_out);
}

tv_status_t tv_text_check(const struct tv_text *text)
{
    int line = 1;
    if (strlen(text->data) == text->bytes)
        return TV_OK;
    for (const char *at = text->data; *at != '\0'; at++)
        line += *at == '\n';
    return TV_ERR(TV_BAD_FILE, "%s:%d: not text", text->path, line);
}

tv_status_t tv_topology_parse_node(const struct tv_text *text, const char *section,
                                   struct tv_node_read *node_out)
{
    TV_TRY(tv_text_check(text));
    const char *start = text->data + strspn(text->data, " \t\r\n\xef\xbb\xbf");
    if (*start == '\0')
        return TV_ERR(TV_BAD_FILE, "%s: empty", text->path);
    if (*start != '<')
        return tv_topology_parse_matrix(text, section, node_out);
    if (section != NULL)
        return TV_ERR(TV_BAD_FILE, "%s: XML has no section %s", text->path, section);
    return parse_xml(text, node_out);
}
