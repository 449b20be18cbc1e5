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

tv_status_t tv_topology_parse_node(const struct tv_text *text, const char *section,
                                   struct tv_node_read *node_out)
{
    (void)section;
    (void)node_out;
    return TV_ERR(TV_UNSUPPORTED, "%s: files of topologies are not read yet", text->path);
}

tv_status_t tv_topology_read_network(struct tv_topology *topology, const char *path,
                                     int is_generated)
{
    (void)topology;
    (void)is_generated;
    return TV_ERR(TV_UNSUPPORTED, "%s: files of networks are not read yet", path);
}
