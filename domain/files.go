package domain

// Files says how the directory of an http mapping is served. The target agent serves it;
// the directory is its service.
type Files struct {
	Listing  bool `json:"listing,omitempty" doc:"List what a directory without index.html has" example:"true"`
	DotFiles bool `json:"dot_files,omitempty" doc:"Serve what has a name that begins with a dot too" example:"false"`
}
