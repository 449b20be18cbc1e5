/* mesh/topology_matrix.c -- a node from the text of `nvidia-smi topo -m`: the tool's own output, or
 * rows of it in sections "[A] title", chosen as FILE#A, where '|' may stand between the columns.
 *
 * A row is GPUi, its links to all GPUs, to all NICs, its CPUs, its NUMA nodes. NVn: n NVLinks; PIX,
 * PXB, PHB, NODE, SYS: ever farther over PCIe and between sockets. */
#include "mesh/topology_internal.h"
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_CELLS = 2 * TV_TOPO_MAX_DEVICES, SELF = 0, PIX, PXB, PHB, NODE, SYS, NV = 100 };

struct row {
    int line, num_cells, is_cut;
    int *cells; /* [num_cells]: SELF .. SYS, or NV + n */
    char *cpus; /* "" when unknown */
    int numa;
};

struct matrix {
    const char *path;
    int num_rows, num_cells; /* num_cells: of the longest row */
    struct row *rows;
    int num_names;
    char (*names)[TV_TOPO_NAME]; /* of NICs */
};

static void free_matrix(struct matrix *matrix)
{
    for (int r = 0; r < matrix->num_rows; r++) {
        free(matrix->rows[r].cells);
        free(matrix->rows[r].cpus);
    }
    free(matrix->rows);
    free(matrix->names);
}

/* The meaning of a cell, or -1. SOC is what old versions call SYS. */
static int cell_of(const char *token)
{
    static const struct {
        const char *word;
        int cell;
    } words[] = {{"X", SELF},    {"PIX", PIX}, {"PXB", PXB}, {"PHB", PHB},
                 {"NODE", NODE}, {"SYS", SYS}, {"SOC", SYS}};
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (strcmp(token, words[i].word) == 0)
            return words[i].cell;
    }
    if (strncmp(token, "NV", 2) != 0 || !isdigit((unsigned char)token[2]) || strlen(token) > 4 ||
        strspn(token + 2, "0123456789") != strlen(token + 2))
        return -1;
    return NV + atoi(token + 2);
}

/* The number behind "GPU" or "NIC", or -1 when the token is something else. */
static int number_of(const char *token, const char *kind)
{
    const char *digits = token + strlen(kind);
    if (strncmp(token, kind, strlen(kind)) != 0 || *digits == '\0' || strlen(digits) > 5 ||
        strspn(digits, "0123456789") != strlen(digits))
        return -1;
    return atoi(digits);
}

static int is_list(const char *token)
{
    return isdigit((unsigned char)*token) && strspn(token, "0123456789,-") == strlen(token);
}

static char *next_token(char **rest)
{
    char *token;
    do {
        token = strtok_r(NULL, " \t\r", rest);
    } while (token != NULL && strcmp(token, "|") == 0);
    return token;
}

/* Cells, then CPUs, then NUMA nodes, of which the first has CPUs. */
static tv_status_t parse_row(const struct matrix *matrix, struct row *row, char *token, char **rest)
{
    for (; token != NULL && cell_of(token) >= 0; token = next_token(rest)) {
        if (row->num_cells == MAX_CELLS)
            return TV_ERR(TV_BAD_FILE, "%s:%d: more than %d columns", matrix->path, row->line,
                          MAX_CELLS);
        int *grown = tv_topology_grown(row->cells, row->num_cells, sizeof(*grown));
        if (grown == NULL)
            return TV_ERR(TV_NO_MEMORY, "%d columns", row->num_cells + 1);
        row->cells = grown;
        grown[row->num_cells++] = cell_of(token);
    }
    if (token != NULL && strcmp(token, "-") == 0) /* no NICs */
        token = next_token(rest);
    row->is_cut = token == NULL || (!is_list(token) && strcmp(token, "N/A") != 0);
    row->cpus = strdup(!row->is_cut && is_list(token) ? token : "");
    if (row->cpus == NULL)
        return TV_ERR(TV_NO_MEMORY, "a row");
    const char *numa = row->is_cut ? NULL : next_token(rest);
    row->numa = numa != NULL && is_list(numa) ? atoi(numa) : -1;
    return TV_OK;
}

static tv_status_t add_row(struct matrix *matrix, int line, int gpu, char *token, char **rest)
{
    if (gpu != matrix->num_rows)
        return TV_ERR(TV_BAD_FILE, "%s:%d: the row of GPU%d where that of GPU%d should be",
                      matrix->path, line, gpu, matrix->num_rows);
    struct row *grown = tv_topology_grown(matrix->rows, matrix->num_rows, sizeof(*grown));
    if (grown == NULL)
        return TV_ERR(TV_NO_MEMORY, "%d rows", matrix->num_rows + 1);
    matrix->rows = grown;
    struct row *row = &grown[matrix->num_rows++];
    *row = (struct row){.line = line, .numa = -1};
    TV_TRY(parse_row(matrix, row, token, rest));
    if (row->num_cells > matrix->num_cells)
        matrix->num_cells = row->num_cells;
    return TV_OK;
}

static tv_status_t name_nic(struct matrix *matrix, int nic, const char *name)
{
    if (nic > matrix->num_names || nic >= TV_TOPO_MAX_DEVICES)
        return TV_OK; /* out of order: keeps its number */
    if (nic == matrix->num_names) {
        char(*grown)[TV_TOPO_NAME] =
            tv_topology_grown(matrix->names, matrix->num_names, sizeof(*grown));
        if (grown == NULL)
            return TV_ERR(TV_NO_MEMORY, "%d NICs", nic + 1);
        matrix->names = grown;
        matrix->num_names++;
    }
    snprintf(matrix->names[nic], sizeof(matrix->names[nic]), "%s", name);
    return TV_OK;
}

/* The header: GPU0 GPU1 ... then the NICs, up to "CPU Affinity". */
static tv_status_t parse_header(struct matrix *matrix, char *token, char **rest)
{
    int nic = 0;
    for (; token != NULL && strcmp(token, "CPU") != 0; token = next_token(rest)) {
        if (number_of(token, "GPU") < 0)
            TV_TRY(name_nic(matrix, nic++, token));
    }
    return TV_OK;
}

static tv_status_t parse_line(struct matrix *matrix, char *line, int number)
{
    char *rest = NULL;
    char *first = strtok_r(line, " \t\r", &rest);
    if (first == NULL || *first == '#')
        return TV_OK;
    char *second = next_token(&rest);
    const int gpu = number_of(first, "GPU");
    if (gpu >= 0 && second != NULL && cell_of(second) >= 0)
        return add_row(matrix, number, gpu, second, &rest);
    if (gpu >= 0)
        return parse_header(matrix, second, &rest);
    /* "NIC0: mlx5_0" of the legend */
    const size_t length = strlen(first);
    if (second == NULL || length < 2 || first[length - 1] != ':')
        return TV_OK;
    first[length - 1] = '\0';
    const int nic = number_of(first, "NIC");
    return nic >= 0 && nic < matrix->num_names ? name_nic(matrix, nic, second) : TV_OK;
}

/* Take out what underlines the header on terminals: ESC [ ... letter. */
static void strip_escapes(char *text)
{
    char *to = text;
    while (*text != '\0') {
        if (text[0] == '\033' && text[1] == '[') {
            text += 2;
            text += strspn(text, "0123456789;");
            text += *text != '\0';
        } else {
            *to++ = *text++;
        }
    }
    *to = '\0';
}

/* "[A] ...": the name and its length; 0 for other lines. */
static size_t section_name(const char *line, const char **name_out)
{
    const size_t length = strspn(line + (*line == '['), "abcdefghijklmnopqrstuvwxyz"
                                                        "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-");
    if (*line != '[' || length == 0 || line[1 + length] != ']')
        return 0;
    *name_out = line + 1;
    return length;
}

/* All lines, or those of the section. */
static tv_status_t parse_lines(struct matrix *matrix, char *copy, const char *section)
{
    int is_inside = section == NULL, has_section = 0, number = 0;
    for (char *next = copy; next != NULL;) {
        char *line = strsep(&next, "\n");
        const char *name;
        const size_t length = section_name(line, &name);
        number++;
        if (length > 0 && section == NULL && matrix->num_rows > 0)
            return TV_ERR(TV_BAD_FILE, "%s: several matrices; choose one as FILE#%.*s",
                          matrix->path, (int)length, name);
        if (length > 0 && section != NULL) {
            is_inside = strlen(section) == length && strncmp(section, name, length) == 0;
            has_section |= is_inside;
        } else if (length == 0 && is_inside) {
            TV_TRY(parse_line(matrix, line, number));
        }
    }
    if (section != NULL && !has_section)
        return TV_ERR(TV_BAD_FILE, "%s: no section [%s]", matrix->path, section);
    return TV_OK;
}

static tv_status_t check(const struct matrix *matrix, const char *section)
{
    const int G = matrix->num_rows;
    if (G == 0)
        return TV_ERR(TV_BAD_FILE,
                      "%s%s%s: neither a matrix of GPUs (rows as nvidia-smi topo -m writes them) "
                      "nor XML of hwloc or NCCL; networks are given apart from nodes",
                      matrix->path, section != NULL ? "#" : "", section != NULL ? section : "");
    for (int r = 0; r < G; r++) {
        const struct row *row = &matrix->rows[r];
        if (row->num_cells < G)
            return TV_ERR(TV_BAD_FILE, "%s:%d: GPU%d has %d columns of links, there are %d GPUs",
                          matrix->path, row->line, r, row->num_cells, G);
        for (int c = 0; c < row->num_cells; c++) {
            const int is_nvlink_to_nic = c >= G && row->cells[c] >= NV;
            if ((row->cells[c] == SELF) != (c == r) || is_nvlink_to_nic)
                return TV_ERR(TV_BAD_FILE, "%s:%d: column %d of GPU%d %s", matrix->path, row->line,
                              c, r, c == r ? "is its own and must be X" : "cannot be that");
        }
    }
    if (G > TV_TOPO_MAX_DEVICES || matrix->num_cells - G > TV_TOPO_MAX_DEVICES)
        return TV_ERR(TV_BAD_FILE, "%s: %d GPUs and %d NICs, at most %d of a kind", matrix->path, G,
                      matrix->num_cells - G, TV_TOPO_MAX_DEVICES);
    return TV_OK;
}

/* GPUs and NICs; distance [num_gpus, num_nics]. What the text tells of a NIC's place is which GPUs
 * are near. */
static tv_status_t fill_devices(const struct matrix *matrix, struct tv_node_shape *shape,
                                int *distance, struct tv_warnings *warnings)
{
    const int G = shape->num_gpus, M = shape->num_nics;
    for (int n = 0; n < M; n++) {
        struct tv_nic *nic = &shape->nics[n];
        *nic = (struct tv_nic){.numa = -1, .pcie_switch = -1, .gbps = TV_GBPS_NIC};
        if (n < matrix->num_names)
            snprintf(nic->name, sizeof(nic->name), "%s", matrix->names[n]);
        else
            snprintf(nic->name, sizeof(nic->name), "NIC%d", n);
    }
    for (int g = 0; g < G; g++) {
        const struct row *row = &matrix->rows[g];
        struct tv_gpu *gpu = &shape->gpus[g];
        *gpu = (struct tv_gpu){.numa = row->numa, .package = -1, .pcie_switch = -1, .nic = -1};
        if (row->is_cut || row->num_cells < matrix->num_cells)
            TV_TRY(tv_warn(warnings, "the row of GPU %d is cut off (line %d)", g, row->line));
        if (row->numa >= 0)
            TV_TRY(tv_shape_add_numa(shape, row->numa, row->cpus));
        for (int n = 0; n < M; n++) {
            const int cell = G + n < row->num_cells ? row->cells[G + n] : SYS;
            distance[g * M + n] = cell >= SYS ? TV_FAR : cell;
            if (cell <= NODE && shape->nics[n].numa < 0)
                shape->nics[n].numa = row->numa;
            if (cell <= PXB)
                gpu->pcie_switch = shape->nics[n].pcie_switch = n;
        }
    }
    return tv_shape_pair_nics(shape, distance);
}

static tv_status_t fill_links(const struct matrix *matrix, struct tv_node_shape *shape,
                              int *num_links, struct tv_warnings *warnings)
{
    const int G = shape->num_gpus;
    for (int i = 0; i < G * G; i++) {
        const int cell = matrix->rows[i / G].cells[i % G];
        num_links[i] = cell > NV ? cell - NV : 0;
    }
    return tv_shape_count_links(shape, num_links, TV_GBPS_LINK, warnings);
}

static tv_status_t fill(const struct matrix *matrix, struct tv_node_read *node)
{
    const size_t G = (size_t)matrix->num_rows, num_cells = (size_t)matrix->num_cells;
    const size_t M = num_cells > G ? num_cells - G : 0;
    struct tv_node_shape *shape = &node->shape;
    *shape = (struct tv_node_shape){.gpu_gbps = TV_GBPS_PCIE,
                                    .nic_gbps = TV_GBPS_NIC * (M > 0 ? (double)M : 1),
                                    .gpus = calloc(G + 1, sizeof(*shape->gpus)),
                                    .nics = calloc(M + 1, sizeof(*shape->nics))};
    int *distance = calloc(G * M + 1, sizeof(*distance));
    int *num_links = calloc(G * G + 1, sizeof(*num_links));
    tv_status_t status = TV_OK;
    if (shape->gpus == NULL || shape->nics == NULL || distance == NULL || num_links == NULL)
        status = TV_ERR(TV_NO_MEMORY, "%zu GPUs and %zu NICs", G, M);
    if (status == TV_OK) {
        shape->num_gpus = (int)G;
        shape->num_nics = (int)M;
        status = fill_devices(matrix, shape, distance, &node->warnings);
    }
    if (status == TV_OK)
        status = fill_links(matrix, shape, num_links, &node->warnings);
    free(distance);
    free(num_links);
    return status == TV_OK ? tv_shape_warn(shape, &node->warnings) : status;
}

tv_status_t tv_topology_parse_matrix(const struct tv_text *text, const char *section,
                                     struct tv_node_read *node_out)
{
    char *copy = strdup(text->data);
    if (copy == NULL)
        return TV_ERR(TV_NO_MEMORY, "%s: %zu bytes", text->path, text->bytes);
    struct matrix matrix = {.path = text->path};
    struct tv_node_read node = {0};
    strip_escapes(copy);
    tv_status_t status = parse_lines(&matrix, copy, section);
    if (status == TV_OK)
        status = check(&matrix, section);
    if (status == TV_OK)
        status = fill(&matrix, &node);
    free_matrix(&matrix);
    free(copy);
    if (status != TV_OK) {
        tv_node_read_free(&node);
        return status;
    }
    *node_out = node;
    return TV_OK;
}
