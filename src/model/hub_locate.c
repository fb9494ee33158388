/*
 * hub_locate.c - names of hub models, and where a model lies on this machine.
 *
 * Reads only: it never writes and never asks the network, so a cache on a read-only mount works.
 */
#include <ctype.h>
#include <dirent.h>
#include <string.h>
#include <sys/stat.h>

#include "base/fs.h"
#include "base/mem.h"
#include "model/hub_int.h"

#define MAX_ID_BYTES       200 /* the hub allows 96 a part */
#define MAX_REVISION_BYTES 200
#define MAX_REF_BYTES      256 /* a commit id and perhaps a newline */

static bool is_id_part(const char *text, size_t len)
{
    if (len == 0 || text[0] == '.' || text[0] == '-') {
        return false;
    }
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i];
        bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!plain && c != '-' && c != '_' && c != '.') {
            return false;
        }
    }
    return true;
}

bool hub_is_id(const char *id)
{
    size_t len = strlen(id);
    if (len > MAX_ID_BYTES || strstr(id, "..") != NULL || strstr(id, "--") != NULL) {
        return false; /* "--" stands for the '/' in folder names of the cache */
    }
    const char *slash = strchr(id, '/');
    if (slash == NULL) {
        return is_id_part(id, len);
    }
    size_t org = (size_t)(slash - id);
    return is_id_part(id, org) && is_id_part(slash + 1, len - org - 1);
}

static bool is_name_part(const char *text, size_t len)
{
    if (len == 0 || len > HUB_MAX_NAME_BYTES || text[0] == '.') {
        return false;
    }
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c < 0x20 || c == 0x7f || c == '/' || c == '\\') {
            return false;
        }
    }
    return true;
}

bool hub_is_plain_name(const char *name)
{
    return is_name_part(name, strlen(name));
}

bool hub_is_revision(const char *revision)
{
    if (strlen(revision) > MAX_REVISION_BYTES) {
        return false;
    }
    for (const char *part = revision;; part = strchr(part, '/') + 1) {
        size_t len = strcspn(part, "/");
        if (!is_name_part(part, len)) {
            return false;
        }
        if (part[len] == '\0') {
            return true;
        }
    }
}

bool hub_is_hex(const char *text, size_t len)
{
    return strlen(text) == len && strspn(text, "0123456789abcdef") == len;
}

char *hub_path(const char *a, const char *b, const char *c)
{
    char *ab = fs_join(a, b);
    if (ab == NULL || c == NULL) {
        return ab;
    }
    char *abc = fs_join(ab, c);
    mem_free(ab);
    return abc;
}

static bool is_set(const char *value)
{
    return value != NULL && value[0] != '\0';
}

/* HF_HOME and friends may begin with "~/", as in Python's expanduser. */
static char *expand_home(const char *path, const char *home)
{
    if (path[0] == '~' && path[1] == '/' && is_set(home)) {
        return fs_join(home, path + 2);
    }
    return mem_strdup(path);
}

/* folder/below, where folder may begin with "~/". */
static enum status place(const char *folder, const char *below, const char *home, char **out,
                         struct error *err)
{
    char *base = expand_home(folder, home);
    char *path = base == NULL || below == NULL ? base : fs_join(base, below);
    if (path != base) {
        mem_free(base);
    }
    if (path == NULL) {
        return error_set(err, STATUS_NO_MEMORY, -1, "no memory for a path");
    }
    *out = path;
    return STATUS_OK;
}

enum status hub_home(const struct hub_env *env, char **home, struct error *err)
{
    if (is_set(env->hf_home)) {
        return place(env->hf_home, NULL, env->home, home, err);
    }
    if (is_set(env->xdg_cache_home)) {
        return place(env->xdg_cache_home, "huggingface", env->home, home, err);
    }
    if (is_set(env->home)) {
        return place(env->home, ".cache/huggingface", NULL, home, err);
    }
    return error_set(err, STATUS_USAGE, -1,
                     "no place for the model cache: set HF_HUB_CACHE, HF_HOME or HOME");
}

enum status hub_cache_root(const struct hub_env *env, char **root, struct error *err)
{
    if (is_set(env->hf_hub_cache)) {
        return place(env->hf_hub_cache, NULL, env->home, root, err);
    }
    char *home = NULL;
    enum status s = hub_home(env, &home, err);
    if (s == STATUS_OK) {
        s = place(home, "hub", NULL, root, err);
        mem_free(home);
    }
    return s;
}

char *hub_repo_folder(const char *root, const char *id)
{
    struct strbuf b = {0};
    const char *slash = strchr(id, '/');
    strbuf_printf(&b, "%s/models--", root);
    if (slash != NULL) {
        strbuf_append(&b, id, (size_t)(slash - id));
        strbuf_puts(&b, "--");
        id = slash + 1;
    }
    strbuf_puts(&b, id);
    char *path = b.failed ? NULL : mem_strdup(b.data);
    strbuf_deinit(&b);
    return path;
}

static bool ends_with(const char *text, const char *suffix)
{
    size_t a = strlen(text);
    size_t b = strlen(suffix);
    return a >= b && strcmp(text + a - b, suffix) == 0;
}

/* A folder counts as a model when it has a config.json with weights beside it, or a .gguf; links
 * that lead nowhere do not count. */
static bool holds_model(const char *folder)
{
    DIR *dir = opendir(folder);
    if (dir == NULL) {
        return false;
    }
    bool config = false;
    bool weights = false;
    bool gguf = false;
    for (struct dirent *e = readdir(dir); e != NULL; e = readdir(dir)) {
        struct stat st;
        if (fstatat(dirfd(dir), e->d_name, &st, 0) != 0 || !S_ISREG(st.st_mode)) {
            continue;
        }
        config = config || strcmp(e->d_name, "config.json") == 0;
        weights = weights || ends_with(e->d_name, ".safetensors");
        gguf = gguf || ends_with(e->d_name, ".gguf");
    }
    closedir(dir);
    return gguf || (config && weights);
}

/* The commit in refs/<revision>, or "" when there is none that is fit to be a folder's name. */
static enum status read_ref(const char *repo_folder, const char *revision,
                            char commit[HUB_HASH_HEX + 1], struct error *err)
{
    char *path = hub_path(repo_folder, "refs", revision);
    if (path == NULL) {
        return error_set(err, STATUS_NO_MEMORY, -1, "no memory for a path");
    }
    commit[0] = '\0';
    char *text = NULL;
    size_t len = 0;
    enum status s = fs_read_file(path, MAX_REF_BYTES, &text, &len, err);
    mem_free(path);
    if (s != STATUS_OK) {
        return s;
    }
    while (len > 0 && isspace((unsigned char)text[len - 1])) {
        text[--len] = '\0';
    }
    if (len <= HUB_HASH_HEX && hub_is_hex(text, len) && len >= 40) {
        memcpy(commit, text, len + 1);
    }
    mem_free(text);
    return STATUS_OK;
}

enum status hub_find_snapshot(const char *repo_folder, const char *revision, char **path,
                              struct error *err)
{
    char commit[HUB_HASH_HEX + 1] = "";
    if (hub_is_hex(revision, 40)) {
        memcpy(commit, revision, 41);
    } else {
        enum status s = read_ref(repo_folder, revision, commit, err);
        if (s != STATUS_OK) {
            return s;
        }
    }
    if (commit[0] == '\0') {
        return error_set(err, STATUS_NOT_FOUND, -1, "%s/refs/%s holds no commit id", repo_folder,
                         revision);
    }
    char *snapshot = hub_path(repo_folder, "snapshots", commit);
    char *absent = hub_path(repo_folder, ".no_exist", commit);
    char *no_config = absent == NULL ? NULL : fs_join(absent, "config.json");
    enum status s = STATUS_OK;
    if (snapshot == NULL || no_config == NULL) {
        s = error_set(err, STATUS_NO_MEMORY, -1, "no memory for a path");
    } else if (holds_model(snapshot)) {
        *path = snapshot;
        snapshot = NULL;
    } else {
        s = error_set(err, STATUS_NOT_FOUND, -1, "%s: %s", snapshot,
                      fs_is_file(no_config) ? "the hub has no config.json in this commit"
                                            : "no whole model there (an unfinished download?)");
    }
    mem_free(no_config);
    mem_free(absent);
    mem_free(snapshot);
    return s;
}

/* <models_dir>/org/name, then <models_dir>/name. */
static enum status find_in_models(const char *id, const char *models_dir, char **path,
                                  struct strbuf *looked)
{
    const char *slash = strchr(id, '/');
    const char *names[2] = {id, slash == NULL ? NULL : slash + 1};
    for (int i = 0; i < 2 && names[i] != NULL; i++) {
        char *folder = fs_join(models_dir, names[i]);
        if (folder == NULL) {
            return STATUS_NO_MEMORY;
        }
        if (holds_model(folder)) {
            *path = folder;
            return STATUS_OK;
        }
        strbuf_printf(looked, "%s%s", looked->len == 0 ? "" : ", ", folder);
        mem_free(folder);
    }
    return STATUS_NOT_FOUND;
}

static enum status find_in_cache(const char *id, const struct hub_env *env, char **path,
                                 struct strbuf *looked)
{
    char *root = NULL;
    enum status s = hub_cache_root(env, &root, NULL);
    if (s != STATUS_OK) {
        return s == STATUS_USAGE ? STATUS_NOT_FOUND : s;
    }
    char *repo = hub_repo_folder(root, id);
    mem_free(root);
    if (repo == NULL) {
        return STATUS_NO_MEMORY;
    }
    struct error why = ERROR_INIT;
    s = hub_find_snapshot(repo, "main", path, &why);
    if (s != STATUS_OK && s != STATUS_NO_MEMORY) {
        strbuf_printf(looked, "%s%s", looked->len == 0 ? "" : ", ",
                      fs_is_dir(repo) ? why.message : repo);
        s = STATUS_NOT_FOUND;
    }
    mem_free(repo);
    return s;
}

enum status hub_locate(const char *model, const struct hub_env *env, char **path, struct error *err)
{
    if (model == NULL || model[0] == '\0') {
        return error_set(err, STATUS_USAGE, -1, "no model named: give a folder, a .gguf or an id");
    }
    if (fs_is_dir(model) || fs_is_file(model)) {
        char *copy = mem_strdup(model);
        if (copy == NULL) {
            return error_set(err, STATUS_NO_MEMORY, -1, "no memory for a path");
        }
        *path = copy;
        return STATUS_OK;
    }
    if (!hub_is_id(model) || ends_with(model, ".gguf")) {
        return error_set(
            err, STATUS_NOT_FOUND, -1,
            "%s: no such folder or file; give one, or a hub id for 'llmsched pull ID', "
            "or run 'make model' for the default model",
            model);
    }
    struct strbuf looked = {0};
    const char *models_dir = is_set(env->models_dir) ? env->models_dir : "models";
    enum status s = find_in_models(model, models_dir, path, &looked);
    if (s == STATUS_NOT_FOUND) {
        s = find_in_cache(model, env, path, &looked);
    }
    if (s == STATUS_NO_MEMORY || (s != STATUS_OK && looked.failed)) {
        s = error_set(err, STATUS_NO_MEMORY, -1, "no memory while looking for %s", model);
    } else if (s == STATUS_NOT_FOUND) {
        s = error_set(err, STATUS_NOT_FOUND, -1,
                      "model '%s' is not on this machine: run 'llmsched pull %s', or 'make model' "
                      "for the default model (looked in %s)",
                      model, model, strbuf_text(&looked));
    }
    strbuf_deinit(&looked);
    return s;
}
