/* placeholder until the first file of this folder */
typedef int llmsched_load_placeholder;
