// Package source reads the permitted fields of one person from an organisation's own data: a SQLite database or a folder of CSV files.
//
// # Contract
//
// A connector is configured with categories: which field of the catalogue is which column of which table. What is not configured cannot
// leave, whatever is asked: an asked field without a column is withheld as FIELD_NOT_AVAILABLE, and a column that no asked field needs is
// never part of a statement. Nothing is ever written, and nothing is truncated: more rows than the cap is an error.
//
// Read finds the person first, exactly one, and then reads each asked category by the person's key. It is all or nothing: any error means no
// result. In a result every field either has a value in some record or is withheld with a reason; an empty text counts as no value.
//
// # Finding the person
//
//   - By BSN (citizen service number), equal character by character, where the source holds BSNs and the person comes with one. A BSN that is
//     not found is not looked for by name.
//   - Otherwise by family name and birth date. Names are compared without regard to case, to white space at the ends or doubled, and to the
//     Unicode form of accents; the birth date is a text YYYY-MM-DD. Where given names are configured they must be equal too, which tells
//     twins apart. An address only chooses between several who match. Several left is ErrPersonAmbiguous: no guess is made.
//
// # Trust
//
// The configuration is written by the organisation itself and trusted, yet checked: identifiers are of a narrow alphabet and quoted, and a
// query is one SELECT without parameters. What comes with a request is not trusted: it reaches the database as parameters only, never as SQL.
// The data is trusted to be the organisation's; its errors are not, and are told by code or line number, never by content. A SQLite file is
// opened with mode=ro and query_only. It should come from the organisation's own software: SQLite does not promise to withstand hostile files.
//
// # Configuration
//
//	name: wmo
//	driver: sqlite                # or csv
//	path: /var/lib/wmo/wmo.db     # csv: the folder of the files
//	timeout: 2s
//	person:
//	  table: client               # or query (sqlite); csv: file
//	  key: id                     # what the categories refer to
//	  bsn: bsn
//	  family_name: achternaam     # these where the source holds no BSNs, or besides
//	  birth_date: geboortedatum
//	categories:
//	  WMOP:
//	    query: SELECT v.client_id, s.naam AS soort FROM voorziening v JOIN soort s ON s.id = v.soort_id
//	    key: client_id
//	    fields: {provision_kind: soort}
//	    max_rows: 50
//	  ADDR:
//	    table: adres
//	    key: client_id
//	    fields: {street: straat}
//	    secret_when: geheim       # set: the whole category is withheld as SECRET_ADDRESS
//
// Columns are spelled as the database or the header of the file spells them. A secret_when column is not set when it is empty or null, or
// one of 0, f, false, n, nee, no; everything else means secret.
//
// # CSV
//
// UTF-8, with or without byte order mark, with a header line; separated by semicolons (or commas, as configured), quoted as in RFC 4180. A file
// has at most 64 MiB and a value at most 64 KiB. It is read as a whole and its configured columns are kept in memory until its time, its size
// or the file itself changes. Whoever replaces a file writes another and renames it: a file that changes while it is read is refused, and so
// is a file with a malformed row, whole, by line number.
package source
